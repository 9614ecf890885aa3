"""What a run was asked, on which data: `config.json`, and the copy of what its model needs of the dataset."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streamfeat.errors import ConfigError, DamagedError, FormatVersionError
from streamfeat.records import Frozen, validated
from streamfeat.store.documents import parse_object
from streamfeat.store.files import storage_errors
from streamfeat.store.layout import ITEMS, MANIFEST
from streamfeat.store.manifest import Manifest, load_manifest, manifest_json
from streamfeat.store.writer import write_whole
from train.config import TrainConfig

RUN_CONFIG = "config.json"
RUN_DATASET = "dataset"
RUN_VERSION = 1


class RunRecord(Frozen):
    """`config.json`."""

    format_version: int = RUN_VERSION
    dataset: str  # where the dataset lay
    fingerprint: str  # of the dataset
    train: TrainConfig
    versions: dict[str, str]


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


def write_record(path: Path, dataset: Path, manifest: Manifest, config: TrainConfig) -> None:
    """The data's side first: config.json makes the folder a run."""
    items = read_items_file(dataset, manifest)
    if not (path / RUN_DATASET / ITEMS).exists():
        facts = manifest.model_copy(update={"receipts": ()})
        write_whole(path, f"{RUN_DATASET}/{MANIFEST}", manifest_json(facts).encode())
        write_whole(path, f"{RUN_DATASET}/{ITEMS}", items)
    record = RunRecord(
        dataset=str(dataset.resolve()), fingerprint=manifest.fingerprint, train=config, versions=versions()
    )
    write_whole(path, RUN_CONFIG, (record.model_dump_json(indent=1) + "\n").encode())


def read_items_file(dataset: Path, manifest: Manifest) -> bytes:
    """The bytes of items.parquet, checked: its counts are weights, and a run keeps them when the dataset is gone."""
    try:
        with storage_errors(dataset / ITEMS):
            items = (dataset / ITEMS).read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{dataset / ITEMS}: is missing; restore it or build again") from None
    if hashlib.sha256(items).hexdigest() not in {file.sha256 for file in manifest.files() if file.path == ITEMS}:
        raise DamagedError(f"{dataset / ITEMS}: is not as it was built; run `verify`, then restore it or build again")
    return items
