"""Reads event files as batches of clean events. Each row becomes an event or is rejected with its number and reason."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamfeat.errors import DataError
from streamfeat.events.batches import EventBatch, Rejected, clean_batch, no_formula
from streamfeat.events.casts import MAX_RATING, MAX_VALUE_LEN, Kind, cast_query
from streamfeat.events.column_types import column_kind, invalid_utf8_rows
from streamfeat.events.json_files import JSON_FORMATS
from streamfeat.events.json_rows import read_json
from streamfeat.events.parquet import read_row_groups, stored_time_unit
from streamfeat.events.source import Source
from streamfeat.events.splits import Split
from streamfeat.events.text import lines_relation, write_batches
from streamfeat.events.unrated import told
from streamfeat.events.whole_files import is_read_whole, read_whole
from streamfeat.events.words_for_nobody import without_marks, without_words

DEFAULT_MEDIUM = "item"  # of a dataset's source without a medium column

_QUOTE = "'"
_MEMORY_LIMIT = "512MB"  # of DuckDB; a batch needs much less


def read_batches(split: Split, scratch: Path, default_medium: str, batch_rows: int = 250_000) -> Iterator[EventBatch]:
    """The rows of `split`, in input order, in batches of up to `batch_rows` rows.

    `scratch` is a folder for a temporary file (text sources), which is removed at the end. `default_medium` is the
    medium of a source without that column. Memory holds one batch. Raises DataError if the file is damaged or has
    changed since it was planned, ConfigError if the type of a Parquet column does not fit its role.
    """
    connection = duckdb.connect(config={"threads": 1, "memory_limit": _MEMORY_LIMIT, "temp_directory": str(scratch)})
    try:
        # The optimizer `type_pushdown` would turn TRY_CAST into a cast in the CSV reader, which raises errors.
        connection.execute("SET disabled_optimizers = 'type_pushdown'; SET TimeZone = 'UTC'")
        source = split.source
        is_table = source.format == "parquet" or is_read_whole(source)
        read = _read_tables if is_table else _read_objects if source.format in JSON_FORMATS else _read_text
        num_rows = 0
        for batch in read(connection, split, scratch, default_medium, batch_rows):
            _check_ratings(source, batch)
            num_rows += batch.num_rows
            yield batch
    finally:
        connection.close()
    if num_rows != split.num_rows:
        raise DataError(
            f"{split.source.path}: has {num_rows:,} rows from row {split.first_row:,} on, but had {split.num_rows:,} "
            "before; do not change the file while it is read"
        )


def _read_text(
    connection: duckdb.DuckDBPyConnection, split: Split, scratch: Path, default_medium: str, batch_rows: int
) -> Iterator[EventBatch]:
    source = split.source
    kinds: dict[str, Kind] = dict.fromkeys([*source.columns, *source.constants], "text")
    file = scratch / f".split-{split.number:05d}.{os.getpid()}.lines.tmp"
    relation = without_words(lines_relation(source, file), source.columns)
    queries = [
        cast_query(_completed(rows, source, kinds), kinds, source.time_unit, source.completion_unit, source.unrated)
        for rows in (relation, without_marks(relation, source.columns))
    ]
    first_row = split.first_row
    try:
        for lines in write_batches(split, file, batch_rows, MAX_VALUE_LEN):
            table = connection.sql(queries[lines.has_marks]).to_arrow_table()
            dropped = [
                Rejected(first_row + row, reason, no_formula(value.decode("utf-8", "backslashreplace")))
                for row, reason, value in lines.bad
            ]
            rows = np.arange(first_row, first_row + lines.num_rows)
            if dropped:
                rows = np.delete(rows, [row for row, _, _ in lines.bad])
            yield clean_batch(table, rows, dropped, default_medium, source.statuses)
            first_row += lines.num_rows
    finally:
        file.unlink(missing_ok=True)


def _read_objects(
    connection: duckdb.DuckDBPyConnection, split: Split, scratch: Path, default_medium: str, batch_rows: int
) -> Iterator[EventBatch]:
    source = split.source
    kinds: dict[str, Kind] = dict.fromkeys([*source.columns, *source.constants], "text")
    relation = _completed(without_words("FROM raw_rows", source.columns), source, kinds)
    query = cast_query(relation, kinds, source.time_unit, source.completion_unit, source.unrated)
    for batch in read_json(connection, split, batch_rows):
        connection.register("raw_rows", batch.table)
        table = connection.sql(query).to_arrow_table()
        connection.unregister("raw_rows")
        yield clean_batch(table, batch.rows, batch.dropped, default_medium, source.statuses)


def _read_tables(
    connection: duckdb.DuckDBPyConnection, split: Split, scratch: Path, default_medium: str, batch_rows: int
) -> Iterator[EventBatch]:
    source = split.source
    tables: Iterator[pa.Table]
    if is_whole := is_read_whole(source):
        unit: str = source.time_unit
        tables = (
            table.slice(first, batch_rows) for table in read_whole(source) for first in range(0, len(table), batch_rows)
        )
    else:
        unit = stored_time_unit(source)
        tables = read_row_groups(source, split.first_row_group, split.num_row_groups, batch_rows)
    first_row = split.first_row
    for raw in tables:
        num_rows = raw.num_rows
        rows = np.arange(first_row, first_row + num_rows)
        undated = 0
        if is_whole:
            raw, rows, undated = _own_rows(raw, rows)
        kinds = {name: column_kind(raw.schema.field(name).type) for name in raw.column_names}
        bad = invalid_utf8_rows(raw, [role for role, kind in kinds.items() if kind == "text"])
        dropped = [Rejected(int(rows[row]), "invalid_utf8", "") for row in bad]
        if dropped:
            good = np.ones(num_rows, np.bool_)
            good[bad] = False
            raw, rows = raw.filter(pa.array(good)), rows[good]
        connection.register("raw_rows", raw)
        # Dictionaries (medium, status) need no cast; decoding them would take a third of the time.
        labels = [role for role in kinds if pa.types.is_dictionary(raw.schema.field(role).type)]
        cast = {role: kind for role, kind in kinds.items() if role not in labels}
        relation = "FROM raw_rows"
        if not is_whole:  # in a list an id may be a title, and a title may be None
            relation = without_words(relation, [role for role, kind in cast.items() if kind == "text"])
        cast |= dict.fromkeys(source.constants, "text")
        relation = _completed(relation, source, cast)
        query = cast_query(relation, cast, unit, source.completion_unit, source.unrated)
        table = connection.sql(query).to_arrow_table()
        connection.unregister("raw_rows")
        for role in labels:
            table = table.append_column(role, raw[role])
        yield clean_batch(table, rows, dropped, default_medium, source.statuses, undated)
        first_row += num_rows


def _completed(relation: str, source: Source, kinds: Mapping[str, Kind]) -> str:
    """SQL of `relation` with a column for each constant role, and with ids such as 7.0 as 7 where all are floats."""
    floats = [
        f"regexp_replace(\"{role}\", '^(-?\\d+)\\.0+$', '\\1') AS \"{role}\""
        for role in source.float_ids
        if kinds[role] == "text"
    ]
    replaced = f" REPLACE ({', '.join(floats)})" if floats else ""
    values = [f"'{value.replace(_QUOTE, _QUOTE * 2)}' AS \"{role}\"" for role, value in source.constants.items()]
    return f"SELECT {', '.join([f'*{replaced}', *values])} FROM ({relation})" if floats or values else relation


def _check_ratings(source: Source, batch: EventBatch) -> None:
    """Raises DataError for a rating that would spoil the training with all others."""
    for row, reason, value in batch.rejected:
        if reason == "rating_too_large":
            raise DataError(
                f"{source.path}: row {row}: the rating {value} is beyond ±{MAX_RATING:,}, which no training can bear; "
                f"correct it, make it missing with --unrated {told([*source.unrated, float(value)])}, or leave ratings "
                "out with --columns rating="
            )


def _own_rows(raw: pa.Table, rows: NDArray[np.int64]) -> tuple[pa.Table, NDArray[np.int64], int]:
    """A table of `read_whole` without the columns that are no roles: `row` takes the place of `rows`, and the rows of
    `undated` are counted if they have a time."""
    if "row" in raw.column_names:
        rows = raw["row"].to_numpy()
    undated = 0
    if "undated" in raw.column_names:
        undated = pc.sum(pc.and_(raw["undated"], pc.is_valid(raw["timestamp"]))).as_py() or 0
    return raw.drop_columns([name for name in ("row", "undated") if name in raw.column_names]), rows, undated
