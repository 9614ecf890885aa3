"""Parquet files: reads their columns, row groups and batches of rows, in the few types that the casts accept."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamfeat.errors import ConfigError, DataError
from streamfeat.events.casts import Kind
from streamfeat.events.source import Source
from streamfeat.events.time_forms import MIDNIGHT

LABEL_ROLES = ("medium", "status")  # text of few distinct values
NUMBER_ROLES = ("rating", "completion")
_SAMPLE_ROWS = 4000  # of the first and of the last row group
# Errors that Arrow raises for damaged files: MemoryError for impossible sizes, UnicodeDecodeError for bad names.
_UNREADABLE = (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError, KeyError)
_BUFFER_BYTES = 1 << 20  # column chunks are read in parts, so that a huge row group does not fill memory
# Types that are not text, numbers or times. A duration would be read as a number of an unknown unit.
_UNFIT = (
    pa.types.is_nested,
    pa.types.is_duration,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_UUID_BYTES = 16
_UUID_DIGITS = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])  # places of digits in a UUID's text
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def _open(path: str, as_labels: Sequence[str] = ()) -> pq.ParquetFile:
    """Opens the file. The text columns `as_labels` are read as dictionaries."""
    try:
        return pq.ParquetFile(
            path,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            read_dictionary=list(as_labels),
            page_checksum_verification=True,  # if the file has checksums
        )
    except _UNREADABLE as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> DataError:
    what = str(error).partition("\n")[0] or type(error).__name__
    return DataError(f"{path}: the Parquet file cannot be read ({what}); write it again")


def parquet_columns(path: str) -> list[str]:
    """Names of the top-level columns, in file order."""
    with _open(path) as file:
        return list(file.schema_arrow.names)


def row_group_sizes(path: str) -> list[int]:
    """Rows of each row group."""
    with _open(path) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def read_columns(path: str, names: Sequence[str], role: str) -> pa.Table:
    """All rows of the columns `names`, as text.

    Raises ConfigError if a column's type cannot be read as `role`, DataError if the file is damaged.
    """
    with _open(path) as file:
        for name in names:
            _check_type(path, role, name, _type_of(file, path, name))
        try:
            table = file.read(list(names), use_threads=False)
            table.validate(full=True)
            return pa.table({name: _texts(table[name], role) for name in names})
        except _UNREADABLE as error:
            raise _damaged(path, error) from None


def sample_times(path: str, column: str) -> list[str] | str:
    """Sampled timestamps as text. If the column's type already has a unit, a phrase about it for the user instead.

    Raises ConfigError if the column's type cannot hold times, DataError if the file is damaged.
    """
    with _open(path) as file:
        declared = _type_of(file, path, column)
        _check_type(path, "timestamp", column, declared)
        kind = _stored(declared)
        if pa.types.is_timestamp(kind):
            zone = f"time zone {kind.tz}" if kind.tz else "no time zone, UTC assumed"
            return f"Parquet timestamps in {kind.unit} ({zone})"
        if pa.types.is_date(kind):
            return "Parquet dates, UTC assumed"
        values: list[str] = []
        for group in sorted({0, file.num_row_groups - 1} - {-1}):
            try:
                batch = next(file.iter_batches(_SAMPLE_ROWS, [group], [column], use_threads=False), None)
                values += [] if batch is None else _shown(_plain(batch.column(0), "timestamp"))
            except _UNREADABLE as error:
                raise _damaged(path, error) from None
        return values


def sample_column(path: str, column: str) -> list[str]:
    """Sampled values of a column as text, in file order, empty where missing; [] if its type is no text, number or
    time.

    Raises DataError if the file is damaged.
    """
    with _open(path) as file:
        if file.schema_arrow.names.count(column) != 1 or _is_unfit(_type_of(file, path, column)):
            return []
        values: list[str] = []
        for group in sorted({0, file.num_row_groups - 1} - {-1}):
            try:
                batch = next(file.iter_batches(_SAMPLE_ROWS, [group], [column], use_threads=False), None)
                values += [] if batch is None else sampled_texts(batch.column(0))
            except _UNREADABLE as error:
                raise _damaged(path, error) from None
        return values


def sampled_texts(column: pa.Array) -> list[str]:
    """The values of a column of text, numbers or times as text, empty where missing; invalid bytes are replaced."""
    stored = _stored(column.type)
    is_time = pa.types.is_timestamp(stored) or pa.types.is_date(stored)
    if not is_time:
        column = _plain(column, "rating" if pa.types.is_boolean(stored) else "")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_time or column_kind(column.type) != "text":
        column = column.cast(pa.string())
    column = column.cast(pa.large_binary())
    return ["" if value is None else value.decode("utf-8", "replace") for value in column.to_pylist()]


def _shown(column: pa.Array) -> list[str]:
    """The column's values as text, without nulls; invalid bytes are replaced."""
    return [text for text, valid in zip(_decoded(column), column.is_valid().to_pylist(), strict=True) if valid]


def _decoded(column: pa.Array) -> list[str]:
    """The values of a column of `_plain` as text, "" for null; invalid bytes are replaced."""
    if column_kind(column.type) == "text":
        column = column.cast(pa.large_binary())
    texts = (value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in column.to_pylist())
    return ["" if text is None else str(text) for text in texts]


def read_row_groups(source: Source, first: int, num: int, batch_rows: int) -> Iterator[pa.Table]:
    """Tables of up to `batch_rows` rows with one column for each role, in file order, in types of `column_kind`.

    Text columns of LABEL_ROLES are dictionaries (int32 → string).

    Raises ConfigError if a column's type does not fit its role, DataError if the file is damaged.
    """
    with _open(source.path) as file:  # checked first: Arrow cannot open a nested column as a dictionary
        for role, column in [*source.columns.items(), *(("timestamp", column) for column in source.joined)]:
            _check_type(source.path, role, column, _type_of(file, source.path, column))
    with _open(source.path, [source.columns[role] for role in LABEL_ROLES if role in source.columns]) as file:
        names = [*source.columns.values(), *source.joined]
        batches = file.iter_batches(batch_rows, list(range(first, first + num)), names, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                columns = {role: _plain(batch.column(column), role) for role, column in source.columns.items()}
                if source.joined:
                    times = (source.columns["timestamp"], *source.joined)
                    columns["timestamp"] = _joined([_plain(batch.column(column), "") for column in times])
            except _UNREADABLE as error:
                raise _damaged(source.path, error) from None
            yield pa.table(columns)


def _joined(columns: Sequence[pa.Array]) -> pa.Array:
    """The text of times whose date and time of day are in several columns; null without the first."""
    first, *others = (column.cast(pa.string()) for column in columns)
    date = pc.replace_substring_regex(first, MIDNIGHT, "")
    joined = pc.binary_join_element_wise(
        date.fill_null(""), *others, pa.scalar(" "), null_handling="replace", null_replacement=""
    )
    return pc.if_else(first.is_valid(), joined, pa.scalar(None, pa.string()))


def stored_time_unit(source: Source) -> str:
    """The unit of the timestamps of `read_row_groups`: of a typed column, the unit of its integers."""
    if source.time_unit != "timestamp":
        return source.time_unit
    with _open(source.path) as file:
        kind = _stored(_type_of(file, source.path, source.columns["timestamp"]))
    return kind.unit if pa.types.is_timestamp(kind) else "s"


def column_kind(kind: pa.DataType) -> Kind:
    """The kind, for the casts, of a column of `read_row_groups`."""
    if pa.types.is_unsigned_integer(kind):
        return "unsigned"
    if pa.types.is_integer(kind):
        return "integer"
    return "floating" if pa.types.is_floating(kind) else "text"


def _type_of(file: pq.ParquetFile, path: str, column: str) -> pa.DataType:
    try:
        return file.schema_arrow.field(column).type
    except KeyError:
        raise DataError(
            f"{path}: the column {column!r} is there twice, or the file was changed while it was read; rename one of "
            "the columns, or run the same command again"
        ) from None


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves, without dictionary and extension type."""
    while True:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def _is_unfit(kind: pa.DataType) -> bool:
    return any(is_unfit(_stored(kind)) for is_unfit in _UNFIT) and not _is_uuid(kind)


def _check_type(path: str, role: str, column: str, kind: pa.DataType) -> None:
    if _is_unfit(kind):
        raise ConfigError(
            f"{path}: column {column!r} is of type {kind}, which cannot be read as {role}; "
            f"write it as text or numbers, or name another column with --columns {role}=NAME"
        )


def _plain(column: pa.Array, role: str) -> pa.Array:
    """The column as text, integers or floats; timestamps as their stored integers."""
    kind = column.type
    if _is_uuid(kind):
        return _uuid_texts(column.storage)
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(column.storage, role)
    if pa.types.is_dictionary(kind):
        if role in LABEL_ROLES and _holds_utf8(column.dictionary):
            return column.cast(pa.dictionary(pa.int32(), pa.string()))
        return _plain(column.dictionary_decode(), role)
    if role == "timestamp" and pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    if role == "timestamp" and pa.types.is_timestamp(column.type):
        return column.view(pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column
    if pa.types.is_boolean(kind) and role in NUMBER_ROLES:
        return column.cast(pa.int8())
    if pa.types.is_floating(kind):
        return column.cast(pa.float32()) if pa.types.is_float16(kind) else column
    return column.cast(pa.string())


def _texts(column: pa.ChunkedArray, role: str) -> pa.ChunkedArray:
    return pa.chunked_array([_plain(chunk, role).cast(pa.string()) for chunk in column.chunks], pa.string())


def _uuid_texts(stored: pa.Array) -> pa.Array:
    """UUIDs, 16 bytes each, as their usual text: lower-case hexadecimal digits in five groups."""
    first = stored.offset * _UUID_BYTES
    size = len(stored) * _UUID_BYTES
    values = np.frombuffer(stored.buffers()[1], np.uint8, size, first).reshape(-1, _UUID_BYTES)
    texts = np.full((len(stored), 36), ord("-"), np.uint8)
    texts[:, _UUID_DIGITS[::2]] = _HEX[values >> 4]
    texts[:, _UUID_DIGITS[1::2]] = _HEX[values & 15]
    ends = np.arange(0, texts.size + 1, 36, dtype=np.int64)
    array = pa.Array.from_buffers(pa.large_string(), len(stored), [None, pa.py_buffer(ends), pa.py_buffer(texts)])
    return pc.if_else(stored.is_valid(), array, pa.scalar(None, pa.large_string()))


def invalid_utf8_rows(table: pa.Table, roles: Sequence[str]) -> NDArray[np.int64]:
    """Rows with text that is not UTF-8 in one of `roles`. Parquet declares UTF-8, but writers may not obey."""
    bad: set[int] = set()
    for role in roles:
        column = table.column(role)
        if not _holds_utf8(column):
            binary = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
            bad.update(i for i, value in enumerate(binary.to_pylist()) if value is not None and not _is_utf8(value))
    return np.array(sorted(bad), np.int64)


def _holds_utf8(column: pa.Array | pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
