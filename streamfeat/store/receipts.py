"""Receipts: the small records that commit the files of a task. Each kind of task has its own type.

`kind` says which type it is. Typed fields hold what other tasks need to know. The task's name is only the name of the
receipt's file.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from streamfeat.config import MAX_COUNT, SplitName
from streamfeat.records import Frozen
from streamfeat.store.layout import HISTORIES, WINDOWS

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Store = Literal["histories.zarr", "windows.zarr"]
Range = tuple[int, int] | tuple[()]  # smallest and largest value; empty if there are no values


class FileRecord(Frozen):
    """A committed file: path below the dataset folder, size in bytes, SHA-256 in hex."""

    path: str
    size: Count
    sha256: str
    crc32c: str = ""  # for a shard: the crc32c, in hex, of its chunks' checksums in order; readers check it

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if key != "crc32c" or value}


def shard_checksums(files: Iterable[FileRecord], array: str) -> dict[int, str]:
    """Number of a shard of the array → its record's `crc32c`, if it has one."""
    below = f"{array}/c/"
    numbers = ((file.path.removeprefix(below).partition("/")[0], file) for file in files)
    return {int(number): file.crc32c for number, file in numbers if number.isdecimal() and file.crc32c}


class SplitFacts(Frozen):
    """Facts about a range of rows of an event file."""

    counts: dict[str, Count]  # rows read, rejected by reason, left out, with odd times
    media: tuple[str, ...]  # by the codes of the local item table
    media_seen: tuple[str, ...]  # media of all rows, including those left out
    num_blocks: Count  # spill files


class SortedFacts(Frozen):
    """Facts about the histories of one partition."""

    users: Count
    events: Count
    tied: Count  # events with the same time as another event of the user
    targets: Count  # events with an item target
    repeats: Count  # targets whose item occurs in an earlier event of the history that is not planned
    time_range: Range  # Unix seconds
    rating_levels: tuple[float, ...] | None  # the distinct ratings; None if there are too many for codes of one byte
    rating_max: float  # 0 if no event is rated
    completion_levels: tuple[float, ...] | None


class PartitionFacts(SortedFacts):
    duplicates: Count  # events left out


class FilterFacts(SortedFacts):
    filtered_by_item: Count  # events of rare items, removed first
    filtered_by_user: Count  # events of users who then had too few
    users_filtered: Count


class HistoryFacts(Frozen):
    """Facts about one shard of the event columns, for the loss scales and the manifest's times."""

    training_times: Range  # of training events, seconds since the schema's time_origin
    ratings: tuple[tuple[float, ...], ...]  # (3, media): number, sum and sum of squares of the training ratings


class CommonReceipt(Frozen):
    """The fields of every receipt."""

    task: str  # name of the receipt's file, for instance "window-training-00000-00003"
    digest: str  # of the plan (up to histories), the fingerprint (windows) or the export for which it was made
    rows: Count
    files: tuple[FileRecord, ...]


class SplitReceipt(CommonReceipt):
    """A range of rows of an event file was read and distributed to partitions."""

    kind: Literal["split"] = "split"
    facts: SplitFacts


class PartitionReceipt(CommonReceipt):
    """A partition was sorted into histories."""

    kind: Literal["partition"] = "partition"
    facts: PartitionFacts


class FilterReceipt(CommonReceipt):
    """A partition was filtered."""

    kind: Literal["filter"] = "filter"
    facts: FilterFacts


class OffsetsReceipt(CommonReceipt):
    """`offsets` and `partition_offsets`. `rows` is the length of `offsets`, users + 1."""

    kind: Literal["offsets"] = "offsets"


class HistoryReceipt(CommonReceipt):
    """A shard of every event column."""

    kind: Literal["history"] = "history"
    facts: HistoryFacts


class TablesReceipt(CommonReceipt):
    """`items.parquet` and `users.parquet`. `rows` is the number of users."""

    kind: Literal["tables"] = "tables"


class RejectedReceipt(CommonReceipt):
    """`rejected.csv`."""

    kind: Literal["rejected"] = "rejected"


class MetadataReceipt(CommonReceipt):
    """Every `zarr.json` of a store. `rows` is the number of files."""

    kind: Literal["metadata"] = "metadata"
    store: Store


class WindowReceipt(CommonReceipt):
    """A shard of every array of a packing."""

    kind: Literal["window"] = "window"
    split: SplitName
    packing: Count
    shard: Count


class FeaturesReceipt(CommonReceipt):
    """A shard of exported features."""

    kind: Literal["features"] = "features"
    shard: Count


_WINDOW_NAME = re.compile(r"window-(training|validation)-([0-9]+)-([0-9]+)")


def _upgraded(values: Any) -> Any:
    """Converts a receipt of format 1 to format 2. Other values stay as they are.

    In format 1 every receipt had `facts`; those of windows, tables and metadata were empty. Only the task's name said
    whether a `history` was the offsets, which store a receipt belonged to, or which shard of which packing.
    """
    if not isinstance(values, dict) or values.get("facts") != {} or not isinstance(values.get("task"), str):
        return values
    task: str = values["task"]
    rest = {key: value for key, value in values.items() if key != "facts"}
    match values.get("kind"):
        case "history" if task == "offsets":
            return rest | {"kind": "offsets"}
        case "tables":
            return rest | {"kind": "rejected" if task == "rejected" else "tables"}
        case "metadata":
            return rest | {"store": HISTORIES if task == "metadata-histories" else WINDOWS}
        case "window" if name := _WINDOW_NAME.fullmatch(task):
            return rest | {"split": name[1], "packing": int(name[2]), "shard": int(name[3])}
    return values


Receipt = Annotated[
    SplitReceipt
    | PartitionReceipt
    | FilterReceipt
    | OffsetsReceipt
    | HistoryReceipt
    | TablesReceipt
    | RejectedReceipt
    | MetadataReceipt
    | WindowReceipt
    | FeaturesReceipt,
    Field(discriminator="kind"),
    BeforeValidator(_upgraded),
]
"""Any receipt."""

SortedReceipt = PartitionReceipt | FilterReceipt  # the receipts of a partition of sorted histories

ReceiptT = TypeVar("ReceiptT", bound=CommonReceipt)
