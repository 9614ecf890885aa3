"""`items.parquet` and `users.parquet`: the items and users of the dense ids."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamfeat.errors import DamagedError
from streamfeat.store.files import open_below, size_and_digest, write_durably
from streamfeat.store.layout import ITEMS, USERS
from streamfeat.store.receipts import FileRecord
from streamfeat.store.writer import write_whole

ITEM_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("medium", pa.string(), nullable=False),
        pa.field("raw_id", pa.string(), nullable=False),
        pa.field("events", pa.int64(), nullable=False),  # all splits, planned included
        pa.field("title", pa.string()),
        pa.field("targets", pa.int64(), nullable=False),  # training events that are not planned: popularity
    ]
)
USER_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("raw_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # validation if the user has no training events
        pa.field("events", pa.int64(), nullable=False),
        pa.field("training_events", pa.int64(), nullable=False),  # so many first events are in training windows
        pa.field("validation_events", pa.int64(), nullable=False),  # so many first events are in validation windows
    ]
)


@dataclass(frozen=True)
class ItemTable:
    """The rows of `items.parquet`. Row i describes item i."""

    medium: list[str]
    raw_id: list[str]
    title: list[str | None]
    events: NDArray[np.int64]
    targets: NDArray[np.int64]


def write_items(root: Path, columns: dict[str, Any]) -> FileRecord:
    """Writes `items.parquet`. `columns` have the names of `ITEM_SCHEMA`."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=ITEM_SCHEMA), buffer, write_page_checksum=True)
    return write_whole(root, ITEMS, buffer.getvalue())


def write_users(root: Path, parts: Iterable[dict[str, Any]]) -> FileRecord:
    """Writes `users.parquet` with one row group for each part. A part has the columns of `USER_SCHEMA`."""
    size, sha256 = write_durably(root, USERS, _parquet_parts(parts))
    return FileRecord(path=USERS, size=size, sha256=sha256)


class _Drain(io.RawIOBase):
    """A file object whose written parts can be taken out, so that a table of any length needs little memory."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        self._size += len(self.parts[-1])
        return len(self.parts[-1])

    def tell(self) -> int:
        return self._size

    def take(self) -> list[bytes]:
        parts, self.parts = self.parts, []
        return parts


def _parquet_parts(tables: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    drain = _Drain()
    with pq.ParquetWriter(drain, USER_SCHEMA, write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(pa.table(table, schema=USER_SCHEMA))
            yield from drain.take()
    yield from drain.take()


def check_table(
    root: str | Path, name: str, sha256: set[str], remedy: str = "run `verify`, then restore it or build again"
) -> None:
    """Raises DamagedError unless the SHA-256 of a table's file is one of the recorded ones. Otherwise the table of
    another dataset would be read without an error."""
    root = Path(root)
    try:
        found = size_and_digest(root, name)[1]
    except FileNotFoundError:
        raise DamagedError(f"{root / name}: is missing; {remedy}") from None
    if found not in sha256:
        raise DamagedError(f"{root / name}: is not as it was built; {remedy}")


def read_item_columns(root: str | Path) -> pa.Table:
    """`items.parquet` with the columns of `ITEM_SCHEMA`. Raises DamagedError if it cannot be read."""
    path = Path(root) / ITEMS
    try:
        with _opened(path) as file:
            table = file.read(ITEM_SCHEMA.names, use_threads=False)
        _check_columns(table, ITEM_SCHEMA, ITEM_SCHEMA.names)
    except _UNREADABLE as error:
        raise _damaged(path, error) from None
    return table


def read_items(root: str | Path) -> ItemTable:
    """The item table of a dataset. Raises DamagedError if it cannot be read."""
    table = read_item_columns(root)
    return ItemTable(
        medium=table["medium"].to_pylist(),
        raw_id=table["raw_id"].to_pylist(),
        title=table["title"].to_pylist(),
        events=table["events"].to_numpy(),
        targets=table["targets"].to_numpy(),
    )


def read_user_columns(root: str | Path, names: list[str], first: int = 0, last: int | None = None) -> pa.Table:
    """Columns of `users.parquet` for the users `first` to `last` - 1 (None: to the end).

    Reads only the row groups of these users. Raises DamagedError if they cannot be read.
    """
    path = Path(root) / USERS
    try:
        with _opened(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            edges = np.cumsum([0, *sizes])
            last = int(edges[-1]) if last is None else last
            groups = np.flatnonzero((edges[:-1] < last) & (edges[1:] > first)).tolist()
            # Arrow silently leaves out missing columns; `select` raises an error for them.
            table = file.read_row_groups(groups, columns=names, use_threads=False).select(names)
        _check_columns(table, USER_SCHEMA, names)
    except _UNREADABLE as error:
        raise _damaged(path, error) from None
    return table.slice(first - int(edges[groups[0]]) if groups else 0, last - first)


def read_user_ids(root: str | Path) -> list[str]:
    """Raw ids in the order of dense user ids."""
    ids: list[str] = read_user_columns(root, ["raw_id"])["raw_id"].to_pylist()
    return ids


# Errors that Arrow raises for damaged files. ArrowInvalid is a ValueError; an impossible size gives a MemoryError.
_UNREADABLE = (OSError, pa.ArrowException, DamagedError, ValueError, KeyError, MemoryError)


def _opened(path: Path) -> pq.ParquetFile:
    """Opens the table without following a link.

    `pre_buffer` is off: Arrow's threads would call the Python file object, perhaps while the interpreter is ending, and
    then the process aborts.
    """
    file = os.fdopen(open_below(path.parent, path.name), "rb")
    return pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)


def _check_columns(table: pa.Table, schema: pa.Schema, names: Sequence[str]) -> None:
    """Raises ValueError if a column has another type, nulls where none are allowed, or text that is not UTF-8."""
    for name in names:
        field, column = schema.field(name), table[name]
        if column.type != field.type or (column.null_count and not field.nullable):
            raise ValueError(f"column {name} has the type {column.type} and {column.null_count} missing values")
        column.validate(full=True)


def _damaged(path: Path, error: Exception) -> DamagedError:
    return DamagedError(f"{path}: cannot be read ({error}); run verify, or build again")
