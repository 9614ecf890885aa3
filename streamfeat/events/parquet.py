"""Parquet files: their columns, row groups and batches of rows in the few types that the casts know."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamfeat.errors import ConfigError, DataError
from streamfeat.events.casts import Kind
from streamfeat.events.source import TICKS_PER_SECOND, Source

LABEL_ROLES = ("medium", "status")  # text of few distinct values
_SAMPLE_ROWS = 4000  # of the first and of the last row group
# What Arrow raises for damage: sizes that cannot be are a MemoryError, names that are no UTF-8 a UnicodeDecodeError.
_UNREADABLE = (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError, KeyError)
_BUFFER_BYTES = 1 << 20  # a column chunk is read piecewise, so that a huge row group costs no memory


def _open(path: str, as_labels: Sequence[str] = ()) -> pq.ParquetFile:
    """The file; text columns `as_labels` are read as dictionaries."""
    try:
        return pq.ParquetFile(
            path,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            read_dictionary=list(as_labels),
            page_checksum_verification=True,  # where the writer left checksums
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
    """The columns `names`, whole, each as text.

    Raises ConfigError where a column's type cannot be read as `role`, DataError where the file is damaged.
    """
    with _open(path) as file:
        for name in names:
            _check_type(path, role, name, file.schema_arrow.field(name).type)
        try:
            table = file.read(list(names), use_threads=False)
            table.validate(full=True)
            return pa.table({name: table[name].cast(pa.string()) for name in names})
        except _UNREADABLE as error:
            raise _damaged(path, error) from None


def sample_times(path: str, column: str) -> list[str] | str:
    """Sampled timestamps as text, or a phrase for the user where the column's own type tells its unit."""
    with _open(path) as file:
        kind = file.schema_arrow.field(column).type
        if pa.types.is_timestamp(kind):
            zone = f"time zone {kind.tz}" if kind.tz else "no time zone, UTC assumed"
            return f"Parquet timestamps in {kind.unit} ({zone})"
        if pa.types.is_date(kind):
            return "Parquet dates, UTC assumed"
        values: list[str] = []
        for group in sorted({0, file.num_row_groups - 1} - {-1}):
            try:
                batch = next(file.iter_batches(_SAMPLE_ROWS, [group], [column], use_threads=False), None)
            except _UNREADABLE as error:
                raise _damaged(path, error) from None
            if batch is not None:
                values += [str(value) for value in batch.column(0).to_pylist() if value is not None]
        return values


def read_row_groups(source: Source, first: int, num: int, batch_rows: int) -> Iterator[pa.Table]:
    """Tables of up to `batch_rows` rows with one column per role, in file order, in types that `column_kind` knows.

    Of LABEL_ROLES text comes as dictionaries (int32 → string).

    Raises ConfigError where a column's type cannot play its role, DataError where the file is damaged.
    """
    with _open(source.path) as file:  # Arrow opens no nested column as a dictionary
        schema = file.schema_arrow
        for role, column in source.columns.items():
            _check_type(source.path, role, column, schema.field(column).type)
    with _open(source.path, [source.columns[role] for role in LABEL_ROLES if role in source.columns]) as file:
        names = list(source.columns.values())
        batches = file.iter_batches(batch_rows, list(range(first, first + num)), names, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except _UNREADABLE as error:
                raise _damaged(source.path, error) from None
            if batch is None:
                return
            columns = {role: _plain(batch.column(column), role) for role, column in source.columns.items()}
            yield pa.table(columns)


def time_ticks(source: Source) -> int:
    """Ticks per second of the integers that `read_row_groups` gives as timestamps."""
    if source.time_unit != "timestamp":
        return TICKS_PER_SECOND.get(source.time_unit, 1)
    with _open(source.path) as file:
        kind = file.schema_arrow.field(source.columns["timestamp"]).type
    return TICKS_PER_SECOND[kind.unit] if pa.types.is_timestamp(kind) else 1


def column_kind(kind: pa.DataType) -> Kind:
    """How the casts see a column of `read_row_groups`."""
    if pa.types.is_unsigned_integer(kind):
        return "unsigned"
    if pa.types.is_integer(kind):
        return "integer"
    return "floating" if pa.types.is_floating(kind) else "text"


def _check_type(path: str, role: str, column: str, kind: pa.DataType) -> None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    nested = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if nested or pa.types.is_fixed_size_binary(kind):
        raise ConfigError(
            f"{path}: column {column!r} is of type {kind}, which cannot be read as {role}; "
            f"write it as text or numbers, or name another column with --columns {role}=NAME"
        )


def _plain(column: pa.Array, role: str) -> pa.Array:
    """The column as text, integers or floats; timestamps as the integers that lie behind them."""
    if pa.types.is_dictionary(column.type):
        if role in LABEL_ROLES:
            return column.cast(pa.dictionary(pa.int32(), pa.string()))
        column = column.dictionary_decode()
    kind = column.type
    if role == "timestamp" and pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    if role == "timestamp" and pa.types.is_timestamp(column.type):
        return column.view(pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column
    if pa.types.is_floating(kind):
        return column.cast(pa.float32()) if pa.types.is_float16(kind) else column
    return column.cast(pa.string())


def invalid_utf8_rows(table: pa.Table, roles: Sequence[str]) -> NDArray[np.int64]:
    """Rows whose text is no UTF-8 in one of `roles`: Parquet declares it, nothing ensures it."""
    bad: set[int] = set()
    for role in roles:
        column = table.column(role)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            binary = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
            bad.update(i for i, value in enumerate(binary.to_pylist()) if value is not None and not _is_utf8(value))
    return np.array(sorted(bad), np.int64)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
