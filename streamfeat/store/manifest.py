"""The records that make files count: receipts commit tasks, the manifest commits a dataset."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DamagedError, FormatVersionError, StorageError
from streamfeat.records import Frozen, validated
from streamfeat.schema import FORMAT_VERSION, Schema
from streamfeat.store.layout import MANIFEST

TaskKind = Literal["split", "partition", "history", "window", "tables", "metadata"]


class FileRecord(Frozen):
    """A committed file: path below the dataset folder, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


class Receipt(Frozen):
    """What commits a task: its files whole on disk, and what the coordinator needs to know of them."""

    task: str  # for instance "window-training-0-00003"
    kind: TaskKind
    digest: str  # the plan (up to histories) or the fingerprint (windows) it was made under
    rows: int
    files: tuple[FileRecord, ...]
    facts: dict[str, Any] = Field(default_factory=dict)  # small numbers of this task, by kind


class SplitCounts(Frozen):
    """Sizes of one split."""

    users: int  # of which the split has events: under `last:2` a user can be in both
    events: int  # that it has of them, before crops
    tokens: int  # of one packing: histories with their CLS, after crops
    windows: int  # of one packing
    chunk_windows: int
    shard_windows: int
    packings: int


class MediumScales(Frozen):
    """Of one medium, over training events that are not planned: the loss scales and baselines."""

    medium: str
    items: int
    events: int  # all splits, planned included
    targets: int  # training events with an item target
    ratings: int  # training events with a rating target
    watch_entropy: float  # nats, of the distribution of training targets over items
    rating_mean: float
    rating_variance: float


class SourceFile(Frozen):
    """An event file as it was when it was read."""

    path: str
    size: int
    mtime_ns: int
    format: str


class Manifest(Frozen):
    """`dataset.json`."""

    format_version: int
    schema_: Schema
    config: BuildConfig
    sources: tuple[SourceFile, ...]
    plan: str  # digest of schema version, configuration and sources
    fingerprint: str  # digest of schema, configuration and the checksums of histories, items and users
    num_events: int
    num_users: int
    num_items: int
    splits: dict[Literal["training", "validation"], SplitCounts]
    validation_targets: Literal["all", "last"]  # in a validation window: the last event of each segment
    users_with_too_few_targets: int = 0  # `last:2`: users who train whole; validation's users have both targets
    scales: tuple[MediumScales, ...]
    time_min: int  # seconds since time_origin, over training events
    time_max: int
    time_last: int  # Unix seconds of the last training event
    repeat_share: float  # share of item targets whose item occurs earlier, not planned, in the history
    tied_events: int  # events that share their timestamp with another of the same user
    tie_rule: str
    cleaning: dict[str, int]  # rows read, rejected by reason, left out, duplicates, filtered
    event_chunk: int  # events of a chunk of histories.zarr
    event_shard: int
    special_tokens: dict[str, dict[str, int]]
    receipts: tuple[Receipt, ...]  # every task that wrote files of this dataset

    def packing_of(self, split: str, epoch: int) -> int:
        """The packing that an epoch reads; validation always reads packing 0.

        Raises ConfigError where no training packing was built.
        """
        if split == "validation":
            return 0
        packings = self.splits["training"].packings
        if not packings:
            raise ConfigError(
                "the dataset has no training packing: it was built for live training; train with --live, or build "
                "packings: run build-shards on it without --live"
            )
        return epoch % packings

    def files(self) -> tuple[FileRecord, ...]:
        """Every committed file."""
        return tuple(file for receipt in self.receipts for file in receipt.files)


def load_manifest(path: str | Path) -> Manifest:
    """The manifest of the dataset at `path`.

    Raises ConfigError where no dataset lies there, DamagedError where the manifest cannot be read,
    FormatVersionError where a newer streamfeat wrote it.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise ConfigError(
            f"{path}: no finished dataset here ({MANIFEST} is missing); build one with build-shards, or let it finish"
        )
    try:
        values = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise StorageError(f"{file}: cannot be read ({error.strerror}); grant this user access") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedError(f"{file}: not readable as JSON ({error}); restore it or build again") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise DamagedError(f"{file}: has no format_version; it is no dataset manifest, or it is damaged")
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{file}: written in format {version}, this streamfeat reads up to {FORMAT_VERSION}; upgrade streamfeat"
        )
    checksum = values.pop("checksum", None)
    if checksum != manifest_checksum(values):
        raise DamagedError(f"{file}: was altered: its checksum does not match its content; restore it or build again")
    # A later minor release may add keys; what this one does not know it does not need.
    values = {"schema_" if key == "schema" else key: value for key, value in values.items()}
    values = {key: value for key, value in values.items() if key in Manifest.model_fields}
    try:
        return validated(Manifest, values, str(file))
    except ConfigError as error:
        raise DamagedError(f"{error}; restore {MANIFEST} or build again") from None


def manifest_json(manifest: Manifest) -> str:
    """The text of `dataset.json`."""
    values = manifest.model_dump(mode="json")
    for receipt in values["receipts"]:
        receipt["facts"] = dict(sorted(receipt["facts"].items()))
    ordered = {("schema" if key == "schema_" else key): value for key, value in values.items()}
    return json.dumps(ordered | {"checksum": manifest_checksum(ordered)}, indent=1, ensure_ascii=False) + "\n"


def manifest_checksum(values: dict[str, Any]) -> str:
    """SHA-256 of the manifest without its checksum: compact JSON, keys sorted, UTF-8."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
