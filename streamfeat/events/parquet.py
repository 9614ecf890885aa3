"""Parquet files: reads their columns, row groups and batches of rows, in the few types that the casts accept."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from streamfeat.errors import ConfigError, DataError
from streamfeat.events.column_types import (
    LABEL_ROLES,
    RoundedIdsError,
    column_kind,
    is_unfit_type,
    joined_times,
    plain_column,
    sampled_texts,
    stored_type,
)
from streamfeat.events.source import Source

_SAMPLE_ROWS = 4000  # of the first and of the last row group
# Errors that Arrow raises for damaged files: MemoryError for impossible sizes, UnicodeDecodeError for bad names.
_UNREADABLE = (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError, KeyError)
_BUFFER_BYTES = 1 << 20  # column chunks are read in parts, so that a huge row group does not fill memory


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
        except RoundedIdsError as error:
            raise _rounded(path, names[0], error) from None
        except _UNREADABLE as error:
            raise _damaged(path, error) from None


def sample_times(path: str, column: str) -> list[str] | str:
    """Sampled timestamps as text. If the column's type already has a unit, a phrase about it for the user instead.

    Raises ConfigError if the column's type cannot hold times, DataError if the file is damaged.
    """
    with _open(path) as file:
        declared = _type_of(file, path, column)
        _check_type(path, "timestamp", column, declared)
        kind = stored_type(declared)
        if pa.types.is_timestamp(kind):
            zone = f"time zone {kind.tz}" if kind.tz else "no time zone, UTC assumed"
            return f"Parquet timestamps in {kind.unit} ({zone})"
        if pa.types.is_date(kind):
            return "Parquet dates, UTC assumed"
        values: list[str] = []
        for group in sorted({0, file.num_row_groups - 1} - {-1}):
            try:
                batch = next(file.iter_batches(_SAMPLE_ROWS, [group], [column], use_threads=False), None)
                values += [] if batch is None else _shown(plain_column(batch.column(0), "timestamp"))
            except _UNREADABLE as error:
                raise _damaged(path, error) from None
        return values


def sample_column(path: str, column: str) -> list[str]:
    """Sampled values of a column as text, in file order, empty where missing; [] if its type is no text, number or
    time.

    Raises DataError if the file is damaged.
    """
    with _open(path) as file:
        if file.schema_arrow.names.count(column) != 1 or is_unfit_type(_type_of(file, path, column)):
            return []
        values: list[str] = []
        for group in sorted({0, file.num_row_groups - 1} - {-1}):
            try:
                batch = next(file.iter_batches(_SAMPLE_ROWS, [group], [column], use_threads=False), None)
                values += [] if batch is None else sampled_texts(batch.column(0))
            except _UNREADABLE as error:
                raise _damaged(path, error) from None
        return values


def _shown(column: pa.Array) -> list[str]:
    """The column's values as text, without nulls; invalid bytes are replaced."""
    return [text for text, valid in zip(_decoded(column), column.is_valid().to_pylist(), strict=True) if valid]


def _decoded(column: pa.Array) -> list[str]:
    """The values of a column of `plain_column` as text, "" for null; invalid bytes are replaced."""
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
                columns: dict[str, pa.Array] = {}
                for role, column in source.columns.items():
                    columns[role] = plain_column(batch.column(column), role)
                if source.joined:
                    times = (source.columns["timestamp"], *source.joined)
                    columns["timestamp"] = joined_times([plain_column(batch.column(column), "") for column in times])
            except RoundedIdsError as error:
                raise _rounded(source.path, column, error) from None
            except _UNREADABLE as error:
                raise _damaged(source.path, error) from None
            yield pa.table(columns)


def stored_time_unit(source: Source) -> str:
    """The unit of the timestamps of `read_row_groups`: of a typed column, the unit of its integers."""
    if source.time_unit != "timestamp":
        return source.time_unit
    with _open(source.path) as file:
        kind = stored_type(_type_of(file, source.path, source.columns["timestamp"]))
    return kind.unit if pa.types.is_timestamp(kind) else "s"


def _type_of(file: pq.ParquetFile, path: str, column: str) -> pa.DataType:
    try:
        return file.schema_arrow.field(column).type
    except KeyError:
        raise DataError(
            f"{path}: the column {column!r} is there twice, or the file was changed while it was read; rename one of "
            "the columns, or run the same command again"
        ) from None


def _check_type(path: str, role: str, column: str, kind: pa.DataType) -> None:
    if is_unfit_type(kind):
        raise ConfigError(
            f"{path}: column {column!r} is of type {kind}, which cannot be read as {role}; "
            f"write it as text or numbers, or name another column with --columns {role}=NAME"
        )


def _rounded(path: str, column: str, error: RoundedIdsError) -> DataError:
    return DataError(
        f"{path}: the column {column!r} holds the id {error}: floats of this size have lost digits; write the ids as "
        "integers or text"
    )


def _texts(column: pa.ChunkedArray, role: str) -> pa.ChunkedArray:
    return pa.chunked_array([plain_column(chunk, role).cast(pa.string()) for chunk in column.chunks], pa.string())
