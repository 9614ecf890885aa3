"""The options of a run: of a new one, of one that starts with the weights of another, of a resumed one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamfeat.errors import ConfigError
from streamfeat.records import validated
from streamfeat.store.manifest import Manifest
from train.config import FREE_ON_RESUME, TrainConfig, new_config, overridden
from train.runs.by_size import by_size, said

# Options that decide which parameters a model has and how large they are, so they are those of the weights.
_OF_WEIGHTS = ("preset", "objective", "layers", "width", "heads", "feed_forward")


def new_options(manifest: Manifest, given: Mapping[str, Any]) -> tuple[TrainConfig, str]:
    """The configuration of a new run, and the line that says what was chosen for it."""
    chosen = by_size(manifest, given)
    config = new_config({**given, **chosen})
    check_live(config, given)
    return config, said(manifest, chosen)


def continued_config(old: Path, saved: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a new run that starts from the run `old` with the options `saved`: the `given` options, and
    the saved ones for the others.

    Raises ConfigError, with both values, if a given option contradicts the weights.
    """
    there = flat(saved)
    fixed = (*_OF_WEIGHTS, *(["mask_policy"] if saved.objective == "masked" else []))
    if differing := [name for name in fixed if name in given and given[name] != there[name]]:
        lines = [f"  {option(name)}: {there[name]} there, given {given[name]}" for name in differing]
        raise ConfigError(
            f"--from {old}: its weights belong to other options:\n"
            + "\n".join(lines)
            + "\nleave them out to go on with these weights, or train anew without --from"
        )
    length = "steps" if saved.steps else "epochs"
    kept = {name: value for name, value in there.items() if name not in ("steps", "epochs") or name == length}
    config = new_config(overridden(kept, given))
    check_live(config, given)
    return config


def resumed_config(path: Path, saved: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """The saved configuration, with the `given` options of `FREE_ON_RESUME`.

    Raises ConfigError, with both values, for any other given option that differs.
    """
    there = flat(saved)
    if saved.steps and "epochs" in given:
        raise ConfigError(
            f"{path}: the run was started with --steps {saved.steps}; to continue it, leave out --epochs (also in the "
            "file of --config)"
        )
    differing = [name for name, value in given.items() if name not in FREE_ON_RESUME and value != there[name]]
    if differing:
        lines = [f"  {option(name)}: saved {there[name]}, given {given[name]}" for name in differing]
        raise ConfigError(
            f"{path}: the run was started with other options:\n"
            + "\n".join(lines)
            + "\nleave them out to continue with the saved ones, or start anew (--overwrite, or another folder)"
        )
    free = {name: value for name, value in given.items() if name in FREE_ON_RESUME}
    return validated(TrainConfig, {**saved.model_dump(), **free}, "train")


def flat(config: TrainConfig) -> dict[str, Any]:
    """All options by name, those of the model among them."""
    values = config.model_dump()
    model = values.pop("model")
    return {**values, **model}


def option(name: str) -> str:
    """The option of a field, as it is typed."""
    return "--" + name.replace("_", "-")


def check_live(config: TrainConfig, given: Mapping[str, Any]) -> None:
    """Raises ConfigError for options of live training without `live`: the user may have forgotten --live."""
    if not config.live and (names := sorted(name for name in given if name.startswith("live_"))):
        raise ConfigError(f"{', '.join(map(option, names))}: belongs to live training; add --live, or leave it out")
