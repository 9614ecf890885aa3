"""`config.json` of a run, with its options and dataset, and the run's copy of the parts of the dataset it needs."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field

from streamfeat.errors import ConfigError, DamagedError
from streamfeat.records import Frozen, read_back
from streamfeat.store.files import read_below, read_in_folder, refuse_link
from streamfeat.store.layout import ITEMS, MANIFEST
from streamfeat.store.manifest import Manifest, load_manifest, manifest_json
from streamfeat.store.tables import ItemTable, check_table, read_items
from streamfeat.store.writer import write_whole
from train.config import TrainConfig

RUN_CONFIG = "config.json"
RUN_DATASET = "dataset"
RUN_VERSION = 1
_MOST_CONFIG_BYTES = 2**24


class Origin(Frozen):
    """The weights that a run of `train --from` started with."""

    run: str  # path of the folder of the run that they come from
    fingerprint: str  # of its dataset
    step: int = Field(ge=0, le=2**48)  # of its checkpoint, the best one at that time
    weights_sha256: str  # of the checkpoint's model.safetensors


class RunRecord(Frozen):
    """The content of `config.json`."""

    known_format = ("format_version", RUN_VERSION)

    format_version: int
    dataset: str  # path of the dataset when the run began
    fingerprint: str  # of the dataset
    items_sha256: str = ""  # of the copy of items.parquet; "" in runs of earlier versions
    train: TrainConfig
    started_from: Origin | None = None  # None: from drawn weights
    versions: dict[str, str]


def read_record(path: str | Path) -> RunRecord:
    """Reads `config.json` of the run at `path`.

    Raises ConfigError if there is no run, DamagedError if the file cannot be read, FormatVersionError if a newer
    version wrote it.
    """
    file = Path(path) / RUN_CONFIG
    try:
        data = read_in_folder(Path(path), RUN_CONFIG, _MOST_CONFIG_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no run here ({error}); give the folder of a run: train DATA RUN makes one"
        ) from None
    return read_back(RunRecord, data, file, "restore it, or start anew with --overwrite")


def described(run: Path, record: RunRecord) -> tuple[Manifest, ItemTable]:
    """The manifest and the items of a run's dataset, from the run's own copies. Raises DamagedError if they are damaged
    or not those of `record`."""
    dataset = run / RUN_DATASET
    refuse_link(dataset)
    try:
        manifest = load_manifest(dataset)
        if record.items_sha256:
            check_table(dataset, ITEMS, {record.items_sha256}, "it is a run's own copy")
        items = read_items(dataset)
    except (ConfigError, DamagedError) as error:
        found = str(error) if isinstance(error, DamagedError) else f"{dataset}: {MANIFEST} is missing"
        raise DamagedError(
            f"{found}; restore the run's own files, or run `train --resume`, which writes them again"
        ) from None
    if manifest.fingerprint != record.fingerprint or len(items.raw_id) != manifest.num_items:
        raise DamagedError(
            f"{dataset}: belongs to another dataset than {run}/{RUN_CONFIG}; restore the run's own files"
        )
    return manifest, items


def dataset_of(run: str | Path, dataset: str | Path | None) -> tuple[Path, Manifest]:
    """The dataset that `run` was trained on: the folder `dataset`, by default the folder when the run began.

    Raises ConfigError if it does not exist or is another dataset.
    """
    record = read_record(run)
    if dataset is None and not _can_be_reached(record.dataset):
        raise ConfigError(
            f"{run}: was trained on {record.dataset}, which does not exist; give its folder with --dataset"
        )
    dataset = Path(record.dataset if dataset is None else dataset)
    manifest = load_manifest(dataset)
    if manifest.fingerprint != record.fingerprint:
        raise ConfigError(
            f"{dataset}: has the fingerprint {manifest.fingerprint}, but {run} was trained on the dataset with the "
            f"fingerprint {record.fingerprint}; give that one with --dataset, or train on this one"
        )
    return dataset, manifest


def _can_be_reached(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # the name is too long, or a folder may not be read
        return False


def versions() -> dict[str, str]:
    """The versions of packages that influence a run's numbers."""
    return {name: _version(name) for name in ("streamfeat", "torch", "numpy")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # streamfeat can run from a checkout without being installed
        return "not installed"


def write_record(
    path: Path, dataset: Path, manifest: Manifest, config: TrainConfig, origin: Origin | None = None
) -> None:
    """Writes the copy of the dataset, then config.json: a folder is a run from the moment it has config.json."""
    items = read_items_file(dataset, manifest)
    facts = manifest_json(manifest.model_copy(update={"receipts": ()})).encode()
    for name, content in ((f"{RUN_DATASET}/{MANIFEST}", facts), (f"{RUN_DATASET}/{ITEMS}", items)):
        if not _holds(path, name, content):
            write_whole(path, name, content)
    record = RunRecord(
        format_version=RUN_VERSION,
        dataset=str(dataset.resolve()),
        fingerprint=manifest.fingerprint,
        items_sha256=hashlib.sha256(items).hexdigest(),
        train=config,
        started_from=origin,
        versions=versions(),
    )
    write_whole(path, RUN_CONFIG, (record.model_dump_json(indent=1) + "\n").encode())


def _holds(path: Path, name: str, content: bytes) -> bool:
    try:
        return read_below(path, name, len(content)) == content
    except (FileNotFoundError, DamagedError):
        return False


def read_items_file(dataset: Path, manifest: Manifest) -> bytes:
    """The bytes of items.parquet, checked against the manifest: its counts become weights of the model, and the run
    keeps the copy."""
    sizes = {file.sha256: file.size for file in manifest.files() if file.path == ITEMS}
    try:
        items = read_below(dataset, ITEMS, max(sizes.values(), default=0))
    except FileNotFoundError:
        raise DamagedError(f"{dataset / ITEMS}: is missing; restore it or build again") from None
    if hashlib.sha256(items).hexdigest() not in sizes:
        raise DamagedError(f"{dataset / ITEMS}: is not as it was built; run `verify`, then restore it or build again")
    return items
