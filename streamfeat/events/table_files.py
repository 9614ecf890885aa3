"""Writes tables in memory (pandas, polars, Arrow, Python rows) as event files: Parquet in a private temporary folder.

A file's name depends only on its content and its modification time is fixed, so that building from the same table again
is the same build. Workers read it like any other file.
"""

import contextlib
import hashlib
import io
import os
import re
import reprlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from streamfeat.errors import ConfigError, StreamfeatError, storage_errors
from streamfeat.events.item_lists import column_of
from streamfeat.events.role_names import is_like_rating
from streamfeat.events.roles import Table, candidates_of, find_roles
from streamfeat.events.scratch import scratch_folder
from streamfeat.events.source import ROLES
from streamfeat.progress import Note

NOBODY = "you"  # the user of a history without a column for the user
_ROW_GROUP = 1 << 20  # rows
_FIELDS = ("item", "timestamp", "rating")  # the elements of a tuple

# A line of the builder about a table that was given before and is not now, or the reverse.
_OTHER_TABLE = re.compile(r"^  table-[0-9a-f]{16}\.parquet: was .*\n", re.MULTILINE)

Result = TypeVar("Result")


@dataclass(frozen=True)
class EventFiles:
    """Event files to read, and the names in messages of those that were tables."""

    paths: list[str]
    names: dict[str, str]

    def told(self, text: str) -> str:
        """A message with the tables' names instead of temporary files."""
        text = _OTHER_TABLE.sub("  tables: their rows are not those that it was made from\n", text, count=1)
        text = _OTHER_TABLE.sub("", text)
        for path, name in self.names.items():
            text = text.replace(path, name)
        return text

    def renamed(self, steps: Iterator[Result]) -> Generator[Result]:
        """The steps of a call. Their notes have the tables' names instead of temporary files."""
        try:
            for step in steps:
                yield cast(Result, replace(step, text=self.told(step.text))) if isinstance(step, Note) else step
        finally:
            if isinstance(steps, Generator):
                steps.close()


@contextlib.contextmanager
def event_files(events: Any, columns: Mapping[str, str], name: str = "table") -> Iterator[EventFiles]:
    """The files of `events`: a path, a table, or several of them in order (a list, a tuple, an iterator such as that of
    `Path.glob`); `columns` names columns as in a `BuildConfig`.

    A table is anything with `__arrow_c_stream__`: of pandas, polars, Arrow, DuckDB. Its file exists
    until the end of the block. Errors that the block raises call the table `name`, with a number if there are several.

    Raises ConfigError if something is neither a path nor a table, if a required column is missing, or if a column
    cannot be written; StorageError if the disk refuses.
    """
    several = _several(events)
    given = [events] if several is None else several
    paths: list[str] = []
    names: dict[str, str] = {}
    with contextlib.ExitStack() as open_:
        folder: Path | None = None
        for number, one in enumerate(given):
            if isinstance(one, str | os.PathLike):
                paths.append(os.fspath(one))
                continue
            folder = folder or open_.enter_context(scratch_folder())
            called = name if len(given) == 1 else f"{name} {number}"
            file = str(_write(one, called, folder, columns))
            paths.append(file)
            names[file] = called
        files = EventFiles(paths, names)
        try:
            yield files
        except StreamfeatError as error:
            raise type(error)(files.told(str(error))) from None


def history_table(history: Any, columns: Mapping[str, str]) -> pa.Table:
    """A table of events from a table, or from rows: tuples (item, timestamp) or (item, timestamp, rating), or dicts by
    column. `columns` names columns as in a `BuildConfig`. If there is no column of users, all rows belong to one.

    Timestamps are datetimes (UTC if they have no zone), Unix seconds or ISO text. Raises ConfigError for anything else,
    and for an empty history.
    """
    given = _several(history)
    if given is not None:
        rows = [_row(number, row) for number, row in enumerate(given)]
        names = dict.fromkeys(name for row in rows for name in row)
        table = _arrow("history", lambda: pa.table({name: [row.get(name) for row in rows] for name in names}))
    else:
        table = _arrow("history", lambda: _stream("history", history).read_all())
    if not len(table):
        raise ConfigError("history: is empty; give at least one event")
    if "user" not in columns and column_of(table.column_names, "user") is None:
        table = table.append_column("user", pa.array([NOBODY] * len(table), pa.string()))
    return table


def _several(given: Any) -> list[Any] | None:
    """What a list, a tuple or an iterator holds; None for all else. Readers of Arrow and open files iterate, too."""
    is_one = isinstance(given, io.IOBase) or hasattr(given, "__arrow_c_stream__")
    return list(given) if isinstance(given, list | tuple | Iterator) and not is_one else None


def _row(number: int, row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, list | tuple) and 2 <= len(row) <= len(_FIELDS):
        return dict(zip(_FIELDS, row, strict=False))
    raise ConfigError(
        f"history: row {number} is {reprlib.repr(row)}; give (item, timestamp) or (item, timestamp, rating), or a dict "
        "by column, such as {'item': …, 'medium': …, 'timestamp': …}"
    )


def _stream(name: str, table: Any) -> pa.RecordBatchReader:
    if not hasattr(table, "__arrow_c_stream__"):
        is_lazy = type(table).__name__ == "LazyFrame"
        remedy = "give its .collect()" if is_lazy else "convert it, for instance with pyarrow.table"
        raise ConfigError(
            f"{name}: {type(table).__name__} is neither a path nor a table of pandas, polars or Arrow (which have "
            f"__arrow_c_stream__), nor a list of these; {remedy}"
        )
    return _arrow(name, lambda: pa.RecordBatchReader.from_stream(table))


def _write(table: Any, name: str, folder: Path, columns: Mapping[str, str]) -> Path:
    """Writes the columns of `table` that have a role to a Parquet file, named after its content, with a fixed
    modification time."""
    with _stream(name, table) as reader:
        schema = pa.schema([reader.schema.field(column) for column in _wanted(name, reader.schema.names, columns)])
        file = folder / "table.tmp"
        with storage_errors(file):
            _arrow(name, lambda: _write_parquet(file, schema, reader))
            with file.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            os.utime(file, ns=(0, 0))
            return file.replace(folder / f"table-{digest[:16]}.parquet")


def _wanted(path: str, names: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """The columns that may have a role by their names, in order. Which of them have one is recognised by their values
    when the file is read. Raises ConfigError as `find_roles` does for a table without rows."""
    roles = find_roles(Table(path, names, lambda _: ()), columns, {})
    asked = [role for role, column in columns.items() if column]
    candidates = [name for role in ROLES if role not in asked for name in candidates_of(role, names)]
    may = {*roles.columns.values(), *roles.joined, *candidates, *filter(is_like_rating, names)}
    return [name for name in names if name in may]


def _write_parquet(file: Path, schema: pa.Schema, reader: pa.RecordBatchReader) -> None:
    # Without Arrow's own schema, so that extension types are read back as plain text, numbers or times.
    with pq.ParquetWriter(file, schema, store_schema=False) as writer:
        held: list[pa.RecordBatch] = []
        for batch in reader:
            held.append(batch.select(schema.names))
            if sum(map(len, held)) >= _ROW_GROUP:
                writer.write_table(pa.Table.from_batches(held), row_group_size=_ROW_GROUP)
                held.clear()
        if held:
            writer.write_table(pa.Table.from_batches(held), row_group_size=_ROW_GROUP)


def _arrow(name: str, make: Callable[[], Result]) -> Result:
    """The result of `make`. Errors of Arrow become a ConfigError that names the table."""
    try:
        return make()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        what = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"{name}: cannot be converted to an Arrow table ({what}); use one type for each column"
        ) from None
