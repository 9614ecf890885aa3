"""The folder of a run: what it was asked, on which data, and who may go on with it.

RUN/
  config.json      this page's record, written before the first step
  dataset/         dataset.json (without receipts) and items.parquet: with a checkpoint, all that the model needs
  metrics.jsonl    see metrics.py
  checkpoints/ latest best    see checkpoint.py
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from streamfeat.errors import ConfigError, DamagedError, FormatVersionError, StreamfeatError
from streamfeat.records import Frozen, validated
from streamfeat.store.documents import parse_object
from streamfeat.store.files import LOCK, locked, storage_errors
from streamfeat.store.layout import ITEMS, MANIFEST
from streamfeat.store.manifest import Manifest, load_manifest, manifest_json
from streamfeat.store.writer import write_whole
from train.bad_steps import BAD_STEPS
from train.checkpoint import BEST, CHECKPOINTS, LATEST, Checkpoint, checkpoint_path
from train.config import FREE_ON_RESUME, TrainConfig, new_config
from train.distributed import World
from train.metrics import METRICS

RUN_CONFIG = "config.json"
RUN_DATASET = "dataset"
TENSORBOARD = "tensorboard"
RUN_VERSION = 1

# In the order in which --overwrite deletes them: config.json last, so that a kill in between leaves a run.
_OURS = (CHECKPOINTS, LATEST, BEST, METRICS, BAD_STEPS, TENSORBOARD, RUN_DATASET, RUN_CONFIG)


class RunRecord(Frozen):
    """`config.json`."""

    format_version: int = RUN_VERSION
    dataset: str  # where the dataset lay
    fingerprint: str  # of the dataset
    train: TrainConfig
    versions: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A run that this process holds the lock of."""

    path: Path
    dataset: Path
    manifest: Manifest
    config: TrainConfig
    resumed: bool
    trial: bool = False  # a dry run

    def checkpoint_path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return checkpoint_path(self.path, step)


@contextlib.contextmanager
def open_run(
    dataset: str | Path, path: str | Path, given: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
) -> Iterator[Run]:
    """Make `path` a run on `dataset`, or take up the one that is there, and hold its lock.

    `given` are the options that were given explicitly: fields of `TrainConfig` and `ModelConfig` by name.
    Raises ConfigError where `path` holds a run and neither `resume` nor `overwrite` is set, where it holds
    something else, and where a resumed run was asked something else or saw other data; LockedError where
    another process trains there.
    """
    dataset, path = Path(dataset), Path(path)
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite deletes it: give one of them")
    manifest = load_manifest(dataset)
    with storage_errors(path):
        _check_ours(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            raise ConfigError(f"{path}: no folder can be made here; give another one for the run") from None
    with locked(path, "trains"):
        resumed = (path / RUN_CONFIG).exists()
        if resumed and not resume and not overwrite:
            raise ConfigError(
                f"{path}: holds a run already; "
                "go on with it (--resume), start anew (--overwrite), or give another folder"
            )
        if resumed and resume:
            record = read_record(path)
            _check_same_data(path, record, dataset, manifest)
            config = resumed_config(path, record.train, given)
        else:
            resumed = False
            config = new_config(given)
            _clear(path)
        _check_live(config, given)
        _write_record(path, dataset, manifest, config)
        try:
            yield Run(path, dataset, manifest, config, resumed)
        except StreamfeatError:
            # What could not start leaves no run behind: the corrected command is not another run's.
            if not resumed and not _has_begun(path):
                _clear(path)
            raise


@contextlib.contextmanager
def open_run_together(
    world: World,
    dataset: str | Path,
    path: str | Path,
    given: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Run]:
    """`open_run` on rank 0, whose answer, or failure, is every rank's."""
    with contextlib.ExitStack() as held:
        mine: list[Run] = []  # rank 0's

        def opened() -> dict[str, Any]:
            run = held.enter_context(open_run(dataset, path, given, resume=resume, overwrite=overwrite))
            mine.append(run)
            return {"config": run.config.model_dump(mode="json"), "resumed": run.resumed}

        facts = world.from_first(opened)
        if mine:
            yield mine[0]
        else:
            config = validated(TrainConfig, facts["config"], "train")
            yield Run(Path(path), Path(dataset), load_manifest(dataset), config, facts["resumed"])


def resumed_config(path: Path, saved: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """The saved configuration, with what was `given` of `FREE_ON_RESUME`.

    Raises ConfigError, with both values, for anything else that was given and differs.
    """
    flat = _flat(saved)
    if saved.steps and "epochs" in given:
        raise ConfigError(
            f"{path}: the run was started with --steps {saved.steps}; leave epochs, typed or in --config, out to go on"
        )
    differing = [name for name, value in given.items() if name not in FREE_ON_RESUME and value != flat[name]]
    if differing:
        lines = [f"  {_option(name)}: saved {flat[name]}, given {given[name]}" for name in differing]
        raise ConfigError(
            f"{path}: the run was started with other options:\n" + "\n".join(lines)
            + "\nleave them out to go on with the saved ones, or start anew (--overwrite, or another folder)"
        )  # fmt: skip
    free = {name: value for name, value in given.items() if name in FREE_ON_RESUME}
    return validated(TrainConfig, {**saved.model_dump(), **free}, "train")


def check_checkpoint(run: Run, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint of another configuration or other data than its run's, with a table of differences."""
    state = checkpoint.state
    here, there = _flat(run.config), _flat(state.config)
    lines = [
        f"  {_option(name)}: config.json {value}, checkpoint {there[name]}"
        for name, value in here.items()
        if name not in FREE_ON_RESUME and value != there[name]
    ]
    if state.fingerprint != run.manifest.fingerprint:
        lines.append(f"  dataset: config.json {run.manifest.fingerprint}, checkpoint {state.fingerprint}")
    if lines:
        raise ConfigError(
            f"{checkpoint.path}: is of another run:\n" + "\n".join(lines)
            + "\nput the checkpoints and config.json that belong together back, or start anew (--overwrite)"
        )  # fmt: skip


def read_record(path: str | Path) -> RunRecord:
    """`config.json` of the run at `path`.

    Raises ConfigError where there is no run, DamagedError where it cannot be read, FormatVersionError where a
    newer version wrote it.
    """
    file = Path(path) / RUN_CONFIG
    remedy = "restore it, or start anew with --overwrite"
    try:
        with storage_errors(file):
            data = file.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no run here ({RUN_CONFIG} is missing); give the folder that train was given as --run"
        ) from None
    values = parse_object(data, str(file), remedy)
    if "format_version" not in values:
        raise DamagedError(f"{file}: not readable: has no format_version; {remedy}")
    found = values["format_version"]
    if isinstance(found, int) and found > RUN_VERSION:
        raise FormatVersionError(
            f"{file}: written in run format {found}, this version reads up to {RUN_VERSION}; upgrade streamfeat"
        )
    try:
        return validated(RunRecord, values, str(file))
    except ConfigError as error:
        raise DamagedError(f"{error}; {remedy}") from None


def dataset_of(run: str | Path, dataset: str | Path | None) -> tuple[Path, Manifest]:
    """The dataset that `run` was trained on, where it lies now: at `dataset`, or where it lay when the run began.

    Raises ConfigError where it is not there, or is another one.
    """
    record = read_record(run)
    if dataset is None and not Path(record.dataset).exists():
        raise ConfigError(
            f"{run}: was trained on {record.dataset}, which is not there; say where it lies now with --dataset"
        )
    dataset = Path(record.dataset if dataset is None else dataset)
    manifest = load_manifest(dataset)
    if manifest.fingerprint != record.fingerprint:
        raise ConfigError(
            f"{dataset}: is another dataset (fingerprint {manifest.fingerprint}) than the one that {run} was trained "
            f"on ({record.fingerprint}); give that one with --dataset, or train on this one"
        )
    return dataset, manifest


def versions() -> dict[str, str]:
    """What decides numbers beside the configuration."""
    return {name: _version(name) for name in ("streamfeat", "torch", "numpy")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # streamfeat runs from a checkout, too
        return "not installed"


def _has_begun(path: Path) -> bool:
    """Whether the run made a step."""
    return (path / METRICS).exists() and (path / METRICS).stat().st_size > 0


def _check_live(config: TrainConfig, given: Mapping[str, Any]) -> None:
    """Refuse options of live training without it: a forgotten --live would train on stored packings."""
    if not config.live and (names := sorted(name for name in given if name.startswith("live_"))):
        raise ConfigError(f"{', '.join(map(_option, names))}: belongs to live training; add --live, or leave it out")


def _check_ours(path: Path) -> None:
    """Refuse a folder that holds something and no run: nothing of the user's is ever written over."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ConfigError(f"{path}: is a file; give a folder for the run")
    names = {entry.name for entry in path.iterdir() if not (entry.name.startswith(".") and entry.name.endswith(".tmp"))}
    if RUN_CONFIG in names:
        return
    if foreign := sorted(names - {LOCK, RUN_DATASET}):
        raise ConfigError(
            f"{path}: is not empty and holds no run ({RUN_CONFIG} is missing, {foreign[0]} is there); "
            "give an empty or new folder (nothing was changed)"
        )


def _clear(path: Path) -> None:
    """Delete what a run wrote, and nothing else."""
    with storage_errors(path):
        for entry in (path / name for name in _OURS):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)


def _write_record(path: Path, dataset: Path, manifest: Manifest, config: TrainConfig) -> None:
    """The data's side first: config.json makes the folder a run."""
    items = _read_items(dataset, manifest)
    if not (path / RUN_DATASET / ITEMS).exists():
        facts = manifest.model_copy(update={"receipts": ()})
        write_whole(path, f"{RUN_DATASET}/{MANIFEST}", manifest_json(facts).encode())
        write_whole(path, f"{RUN_DATASET}/{ITEMS}", items)
    record = RunRecord(
        dataset=str(dataset.resolve()), fingerprint=manifest.fingerprint, train=config, versions=versions()
    )
    write_whole(path, RUN_CONFIG, (record.model_dump_json(indent=1) + "\n").encode())


def _read_items(dataset: Path, manifest: Manifest) -> bytes:
    """The bytes of items.parquet, checked: its counts are weights, and a run keeps them when the dataset is gone."""
    try:
        with storage_errors(dataset / ITEMS):
            items = (dataset / ITEMS).read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{dataset / ITEMS}: is missing; restore it or build again") from None
    if hashlib.sha256(items).hexdigest() not in {file.sha256 for file in manifest.files() if file.path == ITEMS}:
        raise DamagedError(f"{dataset / ITEMS}: is not as it was built; run `verify`, then restore it or build again")
    return items


def _check_same_data(path: Path, record: RunRecord, dataset: Path, manifest: Manifest) -> None:
    if record.fingerprint == manifest.fingerprint:
        return
    there, here = _facts(load_manifest(path / RUN_DATASET)), _facts(manifest)
    lines = [
        f"  {name}: saved {there.get(name)}, now {here.get(name)}"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    raise ConfigError(
        f"{path}: the run saw other data than {dataset} holds now:\n"
        f"  fingerprint: saved {record.fingerprint}, now {manifest.fingerprint}\n" + "\n".join(lines[:20])
        + "\ngive the dataset that the run was started on, or start anew (--overwrite, or another folder)"
    )  # fmt: skip


def _facts(manifest: Manifest) -> dict[str, Any]:
    """What a user can understand of a dataset, by dotted name; not where its files lay, nor what follows from that."""
    derived = {"fingerprint", "plan", "receipts", "sources", "special_tokens", "event_chunk", "event_shard"}
    return _leaves(manifest.model_dump(mode="json", exclude=derived))


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= _leaves(value, f"{prefix}{key}.")
    return leaves


def _flat(config: TrainConfig) -> dict[str, Any]:
    values = config.model_dump()
    model = values.pop("model")
    return {**values, **model}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
