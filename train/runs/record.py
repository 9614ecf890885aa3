"""What a run was asked, on which data: `config.json`, and the copy of what its model needs of the dataset."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streamfeat.errors import ConfigError, DamagedError, storage_errors
from streamfeat.records import Frozen, read_back
from streamfeat.store.files import read_below
from streamfeat.store.layout import ITEMS, MANIFEST
from streamfeat.store.manifest import Manifest, load_manifest, manifest_json
from streamfeat.store.writer import write_whole
from train.config import TrainConfig

RUN_CONFIG = "config.json"
RUN_DATASET = "dataset"
RUN_VERSION = 1
_MOST_CONFIG_BYTES = 2**24


class RunRecord(Frozen):
    """`config.json`."""

    known_format = ("format_version", RUN_VERSION)

    format_version: int
    dataset: str  # where the dataset lay
    fingerprint: str  # of the dataset
    items_sha256: str = ""  # of the copy of items.parquet; "" in runs of earlier versions
    train: TrainConfig
    versions: dict[str, str]


def read_record(path: str | Path) -> RunRecord:
    """`config.json` of the run at `path`.

    Raises ConfigError where there is no run, DamagedError where it cannot be read, FormatVersionError where a
    newer version wrote it.
    """
    file = Path(path) / RUN_CONFIG
    with storage_errors(file):
        is_folder = Path(path).is_dir()
    try:
        data = read_below(Path(path), RUN_CONFIG, _MOST_CONFIG_BYTES) if is_folder else None
    except FileNotFoundError:
        data = None
    if data is None:
        raise ConfigError(
            f"{path}: no run here ({RUN_CONFIG} is missing); give the folder of a run: train DATA RUN makes one"
        )
    return read_back(RunRecord, data, file, "restore it, or start anew with --overwrite")


def dataset_of(run: str | Path, dataset: str | Path | None) -> tuple[Path, Manifest]:
    """The dataset that `run` was trained on, where it lies now: at `dataset`, or where it lay when the run began.

    Raises ConfigError where it is not there, or is another one.
    """
    record = read_record(run)
    if dataset is None and not _can_be_reached(record.dataset):
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


def _can_be_reached(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # too long a name, a folder that may not be looked into
        return False


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
    facts = manifest_json(manifest.model_copy(update={"receipts": ()})).encode()
    for name, content in ((f"{RUN_DATASET}/{MANIFEST}", facts), (f"{RUN_DATASET}/{ITEMS}", items)):
        if not _holds(path, name, content):
            write_whole(path, name, content)
    record = RunRecord(
        format_version=RUN_VERSION, dataset=str(dataset.resolve()), fingerprint=manifest.fingerprint,
        items_sha256=hashlib.sha256(items).hexdigest(), train=config, versions=versions(),
    )  # fmt: skip
    write_whole(path, RUN_CONFIG, (record.model_dump_json(indent=1) + "\n").encode())


def _holds(path: Path, name: str, content: bytes) -> bool:
    try:
        return read_below(path, name, len(content)) == content
    except (FileNotFoundError, DamagedError):
        return False


def read_items_file(dataset: Path, manifest: Manifest) -> bytes:
    """The bytes of items.parquet, checked: its counts are weights, and a run keeps them when the dataset is gone."""
    sizes = {file.sha256: file.size for file in manifest.files() if file.path == ITEMS}
    try:
        items = read_below(dataset, ITEMS, max(sizes.values(), default=0))
    except FileNotFoundError:
        raise DamagedError(f"{dataset / ITEMS}: is missing; restore it or build again") from None
    if hashlib.sha256(items).hexdigest() not in sizes:
        raise DamagedError(f"{dataset / ITEMS}: is not as it was built; run `verify`, then restore it or build again")
    return items
