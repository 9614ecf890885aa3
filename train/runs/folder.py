"""The folder of a run: creates it, or opens it to continue the run with the same options and data.

RUN/
  .streamfeat      see store/marker.py; written first
  config.json      see record.py; written before the first step
  dataset/         dataset.json (without receipts) and items.parquet: with a checkpoint, all that the model needs
  terms.safetensors    see run_terms.py
  refreshed.safetensors    see refreshed.py; only after `refresh`
  metrics.jsonl    see metrics.py
  checkpoints/ latest best    see checkpoint.py
  bad-steps.jsonl  see training/bad_steps.py; only if there was a bad step
  tensorboard/     only with --tensorboard
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamfeat.errors import ConfigError, RankError, StreamfeatError, storage_errors
from streamfeat.records import is_recordable, validated
from streamfeat.store.files import check_link, foreign_names, remove, remove_ours
from streamfeat.store.layout import ITEMS, MANIFEST, MARKER
from streamfeat.store.locks import locked, made_folder
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.marker import document, is_marked, leads_where_it_led, mark
from train.config import FREE_ON_RESUME, TrainConfig
from train.devices.ranks import World
from train.runs.checkpoint import BEST, CHECKPOINTS, LATEST, Checkpoint, checkpoint_path, remove_checkpoints
from train.runs.has_targets import check_targets
from train.runs.metrics import METRICS
from train.runs.options import check_live, continued_config, flat, new_options, option, resumed_config
from train.runs.origin import check_same_origin, origin_of
from train.runs.record import (
    RUN_CONFIG,
    RUN_DATASET,
    Origin,
    RunRecord,
    read_items_file,
    read_record,
    write_record,
)
from train.runs.refreshed import REFRESHED
from train.terms.terms import TERMS

TENSORBOARD = "tensorboard"
BAD_STEPS = "bad-steps.jsonl"

# Beside checkpoints and the folders of _OUR_FOLDERS, in the order in which --overwrite deletes them.
_OUR_FILES = (LATEST, BEST, REFRESHED, TERMS, METRICS, BAD_STEPS, RUN_CONFIG)
_OUR_FOLDERS = {
    TENSORBOARD: re.compile(r"events\.out\.tfevents\..+"),  # SummaryWriter's names
    RUN_DATASET: re.compile("|".join(map(re.escape, (MANIFEST, ITEMS)))),
}
_RECORD_KEYS = {name for name, field in RunRecord.model_fields.items() if field.is_required()}


def _nothing() -> None:
    """The `begin` of a run that does not write: of a trial, and of all ranks but 0."""


@dataclass(frozen=True)
class Run:
    """A run whose lock is held, by this process or by rank 0."""

    path: Path
    dataset: Path
    manifest: Manifest
    config: TrainConfig
    resumed: bool
    origin: Origin | None = None  # of the initial weights; None: they are drawn
    begin: Callable[[], None] = _nothing  # on rank 0: deletes what `--overwrite` replaces and writes `config.json`
    chosen: str = ""  # on rank 0: the line that says which options follow from the data's size
    trial: bool = False  # a dry run

    def checkpoint_path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return checkpoint_path(self.path, step)


@contextlib.contextmanager
def open_run(
    dataset: str | Path,
    path: str | Path,
    given: Mapping[str, Any],
    *,
    start_from: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Run]:
    """Creates the run `path` on `dataset`, or opens an existing one to resume it, and holds its lock.

    Nothing in the folder changes before `Run.begin` is called, so a run that cannot start changes nothing. `given` are
    the options that the user gave: fields of `TrainConfig` and `ModelConfig` by name. `start_from` is the folder of the
    run whose weights a new run starts with.

    Raises ConfigError if `path` holds a run and neither `resume` nor `overwrite` is set, if it holds something else, or
    if a resumed run has other options or other data. Raises LockedError if another process trains there.
    """
    dataset, path = Path(dataset), Path(path)
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite deletes it: give one of them")
    manifest = load_manifest(dataset)
    check_targets(dataset, manifest)
    if not is_recordable(str(dataset.resolve())):
        raise ConfigError(f"{str(dataset)!r}: a path that is not UTF-8 cannot be recorded; rename the folder")
    start_from = None if start_from is None else Path(start_from)

    def made() -> tuple[TrainConfig, Origin | None, str]:
        if start_from is None:
            config, chosen = new_options(manifest, given)
            return config, None, chosen
        origin, saved = origin_of(start_from, path, manifest)
        return continued_config(start_from, saved, given), origin, ""

    new = None if resume else made()
    with storage_errors(path):
        _check_ours(path)
    with _made(path), locked(path, "trains"):
        resumed = (path / RUN_CONFIG).exists()
        if resumed and not resume and not overwrite:
            raise ConfigError(
                f"{path}: holds a run already; continue it (--resume), start anew (--overwrite), or give another folder"
            )
        if resumed and resume:
            record = read_record(path)
            _check_same_data(path, record, dataset, manifest)
            config, origin, chosen = resumed_config(path, record.train, given), record.started_from, ""
            check_live(config, given)
            if start_from is not None:
                check_same_origin(path, origin, start_from)
        else:
            resumed = False
            config, origin, chosen = new or made()
        read_items_file(dataset, manifest)
        has_begun = False

        def begin() -> None:
            nonlocal has_begun
            has_begun = True
            mark(path, "run")
            if not resumed:
                _clear(path)
            write_record(path, dataset, manifest, config, origin)

        try:
            yield Run(path, dataset, manifest, config, resumed, origin, begin, chosen)
        except StreamfeatError:
            # A run without a step is removed, so that the corrected command can start in the same folder.
            if has_begun and not resumed and not _has_stepped(path):
                _clear(path)
                with storage_errors(path):
                    if foreign_names(path) == [MARKER]:
                        remove(path / MARKER)
            raise


@contextlib.contextmanager
def open_run_together(
    world: World,
    dataset: str | Path,
    path: str | Path,
    given: Mapping[str, Any],
    *,
    start_from: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Run]:
    """Calls `open_run` on rank 0. Every rank gets the same run, or ends with the same error."""
    with contextlib.ExitStack() as held:
        mine: list[Run] = []  # rank 0's

        def opened() -> dict[str, Any]:
            opening = open_run(dataset, path, given, start_from=start_from, resume=resume, overwrite=overwrite)
            run = held.enter_context(opening)
            mine.append(run)
            return {
                "config": run.config.model_dump(mode="json"),
                "resumed": run.resumed,
                "origin": run.origin.model_dump(mode="json") if run.origin else None,
                "data": _identity(run.manifest),
            }

        facts = world.from_first(opened)
        if mine:
            yield mine[0]
        else:
            config = validated(TrainConfig, facts["config"], "train")
            manifest = _same_manifest(dataset, facts["data"])
            origin = Origin.model_validate(facts["origin"]) if facts["origin"] else None
            yield Run(Path(path), Path(dataset), manifest, config, facts["resumed"], origin)


def _identity(manifest: Manifest) -> str:
    return f"fingerprint {manifest.fingerprint}, {manifest.splits['training'].packings} packings"


def _same_manifest(dataset: str | Path, identity: str) -> Manifest:
    """The manifest of this rank's dataset, which may be a copy. Raises RankError if it is not rank 0's dataset."""
    try:
        manifest = load_manifest(dataset)
    except StreamfeatError as error:
        raise RankError(str(error)) from error
    if _identity(manifest) != identity:
        raise RankError(
            f"{dataset}: is another dataset ({_identity(manifest)}) than rank 0's ({identity}); "
            "give every rank the same"
        )
    return manifest


def check_checkpoint(run: Run, checkpoint: Checkpoint) -> None:
    """Raises ConfigError, with a table of differences, if a checkpoint has other options or data than its run."""
    state = checkpoint.state
    here, there = flat(run.config), flat(state.config)
    lines = [
        f"  {option(name)}: config.json {value}, checkpoint {there[name]}"
        for name, value in here.items()
        if name not in FREE_ON_RESUME and value != there[name]
    ]
    if state.fingerprint != run.manifest.fingerprint:
        lines.append(f"  dataset: config.json {run.manifest.fingerprint}, checkpoint {state.fingerprint}")
    if lines:
        raise ConfigError(
            f"{checkpoint.path}: belongs to another run:\n"
            + "\n".join(lines)
            + "\nrestore the checkpoints and the config.json of one run, or start anew (--overwrite)"
        )


def _has_stepped(path: Path) -> bool:
    """Whether the run has done a step."""
    return (path / METRICS).exists() and (path / METRICS).stat().st_size > 0


@contextlib.contextmanager
def _made(path: Path) -> Iterator[None]:
    """Makes the folder of the run with `made_folder`. Raises ConfigError if it cannot be made."""
    with contextlib.ExitStack() as made:
        with storage_errors(path):
            try:
                made.enter_context(made_folder(path, "trains"))
            except (FileNotFoundError, NotADirectoryError, FileExistsError):
                raise ConfigError(f"{path}: cannot make this folder; give another one for the run") from None
        yield


def _check_ours(path: Path) -> None:
    """Raises ConfigError if a folder holds files but no run, so that the user's files are never overwritten."""
    check_link(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise ConfigError(f"{path}: is a file; give a folder for the run")
    foreign = foreign_names(path)
    # Runs of earlier versions have no marker. Others also name files config.json: ours has these keys.
    is_run = is_marked(path, "run") or document(path, RUN_CONFIG).keys() >= _RECORD_KEYS
    if foreign and not is_run:
        raise ConfigError(
            f"{path}: is not empty and does not hold a run ({foreign[0]} is there); "
            "give an empty or new folder (nothing was changed)"
        )
    if CHECKPOINTS in foreign and leads_where_it_led(path, CHECKPOINTS) is False:
        raise ConfigError(
            f"{path / CHECKPOINTS}: is a symbolic link to a folder that is not empty and not the one of this run's "
            "checkpoints; link to that one or to an empty folder (nothing was changed)"
        )


def _clear(path: Path) -> None:
    """Deletes all that a run wrote but the marker, so that after a kill the folder is still ours."""
    with storage_errors(path):
        remove_checkpoints(path)
        for name, ours in _OUR_FOLDERS.items():
            remove_ours(path / name, ours)
        for name in _OUR_FILES:
            remove(path / name)


def _check_same_data(path: Path, record: RunRecord, dataset: Path, manifest: Manifest) -> None:
    if record.fingerprint == manifest.fingerprint:
        return
    here = _facts(manifest)
    try:
        there = _facts(load_manifest(path / RUN_DATASET))
    except StreamfeatError:  # a killed --overwrite has deleted it; the message then shows the fingerprints only
        there = here
    lines = [
        f"  {name}: saved {there.get(name)}, now {here.get(name)}\n"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    raise ConfigError(
        f"{path}: the run was trained on other data than {dataset} holds now:\n"
        f"  fingerprint: saved {record.fingerprint}, now {manifest.fingerprint}\n"
        + "".join(lines[:20])
        + "give the dataset that the run was started on, or start anew (--overwrite, or another folder)"
    )


def _facts(manifest: Manifest) -> dict[str, Any]:
    """Dotted name → value of the facts of a dataset that a user can understand, without paths and derived values."""
    derived = {"fingerprint", "plan", "receipts", "sources", "special_tokens", "event_chunk", "event_shard"}
    return _leaves(manifest.model_dump(mode="json", exclude=derived))


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= _leaves(value, f"{prefix}{key}.")
    return leaves
