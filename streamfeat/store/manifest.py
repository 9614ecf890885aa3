"""The manifest, which commits a dataset: it describes the dataset and lists all its files in receipts of tasks."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from streamfeat.config import MAX_COUNT, BuildConfig
from streamfeat.errors import ConfigError, DamagedError
from streamfeat.reading import Reading
from streamfeat.records import Frozen, read_back
from streamfeat.schema import FORMAT_VERSION, Schema
from streamfeat.store.files import read_in_folder
from streamfeat.store.layout import ITEMS, MANIFEST
from streamfeat.store.receipts import (
    Count,
    FileRecord,
    HistoryReceipt,
    OffsetsReceipt,
    Receipt,
    WindowReceipt,
    shard_checksums,
)

MAX_MANIFEST_BYTES = 2**30
_REMEDY = "restore it or build again"
_SPARE_ROWS = 2**20  # so many rows more than in the receipts are accepted: they need little memory

LAST_SECOND = 253_402_300_799  # the end of the year 9999

Length = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seconds = Annotated[int, Field(ge=-LAST_SECOND, le=LAST_SECOND)]


class SplitCounts(Frozen):
    """Sizes of one split."""

    users: Count  # users with events in the split; a user can be in both splits, but not with `users:F`
    events: Count  # events of these users in the split, before crops
    tokens: Count  # of one packing: histories with their CLS, after crops
    windows: Count  # of one packing
    chunk_windows: Length
    shard_windows: Length
    packings: Count


class MediumScales(Frozen):
    """Facts about one medium, for loss scales and baselines. They count training events that are not planned."""

    medium: str
    items: Count
    events: Count  # all splits, planned included
    targets: Count  # training events with an item target
    ratings: Count  # training events with a rating target
    watch_entropy: float  # nats, of the distribution of training targets over items
    rating_mean: float
    rating_variance: float

    @property
    def rating_std(self) -> float:
        """The standard deviation of ratings; 1 if all are equal."""
        return self.rating_variance**0.5 or 1.0


class TimeSplit(Frozen):
    """The cuts of a split by time, and what lies after them. An event at a cut lies after it."""

    validation_start: Seconds  # Unix seconds: training events lie before
    test_start: Seconds  # Unix seconds: validation events lie before
    validation_events: Count
    test_events: Count
    test_users: Count  # with an item target from test_start on, and an event before it
    new_users: Count  # with an item target from test_start on, but no event before it
    unseen_items: Count  # items without an item target of training


class SourceFile(Frozen):
    """An event file as it was when it was read."""

    path: str
    size: int
    mtime_ns: int
    format: str


class Manifest(Frozen):
    """`dataset.json`."""

    # A later minor release may add keys that this one does not need.
    model_config = ConfigDict(extra="ignore")
    known_format = ("format_version", FORMAT_VERSION)

    format_version: int
    data_schema: Schema = Field(alias="schema")
    config: BuildConfig
    sources: tuple[SourceFile, ...]
    readings: tuple[Reading, ...] = ()  # how the event files were read, each way once; earlier versions record none
    plan: str  # digest of schema version, configuration and sources
    fingerprint: str  # digest of schema, configuration and the checksums of histories, items and users
    num_events: Count
    num_users: Count
    num_items: Count
    splits: dict[Literal["training", "validation"], SplitCounts]
    validation_targets: Literal["all", "last"]  # in a validation window: the last event of each segment
    users_with_too_few_targets: Count = 0  # `last:2`: users whose whole history is used for training
    time_split: TimeSplit | None = None  # of a split by time
    scales: tuple[MediumScales, ...]
    time_min: Seconds  # seconds since time_origin, over training events
    time_max: Seconds
    time_last: Seconds  # Unix seconds of the last training event
    repeat_share: float  # share of item targets whose item occurs in an earlier event that is not planned (training's,
    # with a split by time)
    tied_events: Count  # events with the same timestamp as another event of the user
    tie_rule: str
    cleaning: dict[str, int]  # rows read, rejected by reason, left out, duplicates, filtered
    event_chunk: Count  # events in a chunk of histories.zarr
    event_shard: Count
    special_tokens: dict[str, dict[str, int]]
    receipts: tuple[Receipt, ...]  # every task that wrote files of this dataset

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What is printed: a manifest is long."""
        names = ("format_version", "num_users", "num_items", "num_events", "fingerprint")
        return [(name, getattr(self, name)) for name in names]

    @model_validator(mode="after")
    def _agree(self) -> "Manifest":
        """Checks that the numbers agree, because they determine the sizes of tables and arrays."""
        schema = self.data_schema
        edges = schema.medium_offsets
        if len(edges) != len(schema.media) + 1 or edges[0] != 0 or sorted(edges) != list(edges):
            raise ValueError(f"schema: {len(schema.media)} media cannot have the medium_offsets {edges[:9]}")
        if (schema.num_users, schema.num_items) != (self.num_users, self.num_items):
            raise ValueError(
                f"schema has {schema.num_users} users and {schema.num_items} items, but num_users and num_items are "
                f"{self.num_users} and {self.num_items}"
            )
        if [(scale.medium, scale.items) for scale in self.scales] != [
            (medium, last - first) for medium, first, last in zip(schema.media, edges, edges[1:], strict=False)
        ]:
            raise ValueError("scales: do not agree with the schema's media and items")
        if not 2 <= schema.window_len <= 2**20:
            raise ValueError(f"schema: a window cannot have {schema.window_len} tokens")
        if abs(schema.time_origin) > LAST_SECOND:
            raise ValueError(f"schema: time_origin {schema.time_origin} is after the year 9999")
        return self

    def packing_of(self, split: str, epoch: int) -> int:
        """The packing that an epoch reads. Validation always reads packing 0.

        Raises ConfigError if the dataset has no training packing.
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

    def digests_of(self, path: str) -> set[str]:
        """SHA-256 of the committed file at `path`: a set of one, or empty."""
        return {file.sha256 for file in self.files() if file.path == path}

    def shard_checksums(self, array: str) -> dict[int, str]:
        """For the array at the path `array` below the dataset: number of a shard → its record's `crc32c`."""
        return shard_checksums(self.files(), array)


def load_manifest(path: str | Path) -> Manifest:
    """The manifest of the dataset at `path`.

    Raises ConfigError if there is no dataset, DamagedError if the manifest cannot be read, FormatVersionError if a
    newer streamfeat wrote it, StorageError if the disk cannot be read.
    """
    root = Path(path)
    file = root / MANIFEST
    try:
        data = read_in_folder(root, MANIFEST, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no finished dataset here ({error}); build one with build-shards, or let it finish"
        ) from None

    def check(values: dict[str, Any]) -> None:
        if not isinstance(values.get("format_version"), int):
            raise DamagedError(
                f"{file}: has no format_version, so it is damaged or not a dataset's manifest; {_REMEDY}"
            )
        if values.pop("checksum", None) != manifest_checksum(values):
            raise DamagedError(f"{file}: was altered: its checksum does not match its content; {_REMEDY}")

    manifest = read_back(Manifest, data, file, _REMEDY, check)
    _check_sizes(manifest, str(file))
    return manifest


def _check_sizes(manifest: Manifest, where: str) -> None:
    """Raises DamagedError if a count is far larger than in the receipts, because counts determine memory and tasks.

    Small differences are accepted here; `verify` finds missing rows.
    """
    if manifest.splits.keys() != {"training", "validation"}:
        raise DamagedError(f"{where}: has the splits {sorted(manifest.splits)}; {_REMEDY}")
    if not manifest.receipts:  # the copy in a run has no receipts
        return
    held: Counter[str] = Counter()
    for receipt in manifest.receipts:
        match receipt:
            case OffsetsReceipt():
                held["users"] += receipt.rows
            case HistoryReceipt():
                held["events"] += receipt.rows
            case WindowReceipt():
                held[f"windows of {receipt.split}"] += receipt.rows
        held["items"] += sum(file.size for file in receipt.files if file.path == ITEMS)  # each has a name of its own
    counted = {"users": manifest.num_users, "items": manifest.num_items, "events": manifest.num_events}
    counted |= {f"windows of {name}": split.windows * split.packings for name, split in manifest.splits.items()}
    for what, count in counted.items():
        if count > 2 * held[what] + _SPARE_ROWS:
            raise DamagedError(f"{where}: counts {count} {what}, far beyond what its receipts hold; {_REMEDY}")


def manifest_json(manifest: Manifest) -> str:
    """The text of `dataset.json`."""
    values = manifest.model_dump(mode="json", by_alias=True)
    return json.dumps(values | {"checksum": manifest_checksum(values)}, indent=1, ensure_ascii=False) + "\n"


def manifest_checksum(values: dict[str, Any]) -> str:
    """SHA-256 of the manifest without its checksum: compact JSON, keys sorted, UTF-8."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
