"""Reads the rows of JSON: each is one object, whose fields DuckDB takes out as text."""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamfeat.events.batches import Rejected, no_formula
from streamfeat.events.casts import MAX_VALUE_LEN
from streamfeat.events.json_elements import elements_of
from streamfeat.events.source import Source
from streamfeat.events.splits import Split
from streamfeat.events.text import LINE_REASONS, blocks, changed, whole_lines
from streamfeat.events.time_casts import joined_sql
from streamfeat.kernels.lines import LINE_GOOD, MAX_LINE_LEN, NO_QUOTE, Dialect, Lines, gather_lines, scan_lines

_BATCH_BYTES = 1 << 26  # a batch of very long rows ends early
_WHOLE_FLOAT = r"(-?\d+)\.0+"  # a number that a program with floats alone wrote for an integer


@dataclass(frozen=True)
class JsonBatch:
    """Consecutive rows of a file."""

    table: pa.Table  # a column of text for each role, of the rows that are JSON objects
    rows: NDArray[np.int64]  # their numbers in the file, from 1
    dropped: list[Rejected]  # the others, in order


def read_json(connection: duckdb.DuckDBPyConnection, split: Split, batch_rows: int) -> Iterator[JsonBatch]:
    """The rows of `split` in batches of up to `batch_rows`. Raises DataError if the file has changed since it was
    planned."""
    query = _fields_query(split.source)
    row = split.first_row
    for texts, bad, num_rows in _texts(split, batch_rows):
        rows = np.delete(np.arange(row, row + num_rows), [place for place, _, _ in bad])
        connection.register("json_rows", pa.table({"text": texts}))
        table = connection.sql(query).to_arrow_table()
        connection.unregister("json_rows")
        dropped = [Rejected(row + place, reason, no_formula(_shown(text))) for place, reason, text in bad]
        is_object = table["is_object"].to_numpy()
        if not is_object.all():
            broken = np.flatnonzero(~is_object)
            dropped += [
                Rejected(int(rows[place]), "malformed_line", no_formula(_shown(texts[place].as_py().encode())))
                for place in broken.tolist()
            ]
            dropped.sort()
            table, rows = table.filter(pa.array(is_object)), rows[is_object]
        yield JsonBatch(table.drop_columns(["is_object"]), rows, dropped)
        row += num_rows


def _shown(text: bytes) -> str:
    return text.strip()[:MAX_VALUE_LEN].decode("utf-8", "backslashreplace")


def _fields_query(source: Source) -> str:
    """SQL that takes the roles' fields out of `json_rows`. All fields come from one pass over the text: with a call for
    each, DuckDB took twice as long."""
    place = {column: number for number, column in enumerate(source.column_names)}
    pointers = [source.json_pointers[place[column]] for column in (*source.columns.values(), *source.joined)]
    quoted = ", ".join("'{}'".format(pointer.replace("'", "''")) for pointer in pointers)
    later = [f"f[{i}]" for i in range(len(source.columns) + 1, len(pointers) + 1)]
    fields = [
        f"regexp_replace(f[{i}], '^{_WHOLE_FLOAT}$', '\\1') AS \"{role}\""
        if role in source.float_ids
        else f'{joined_sql(f"f[{i}]", later) if later and role == "timestamp" else f"f[{i}]"} AS "{role}"'
        for i, role in enumerate(source.columns, start=1)
    ]
    extracted = f"SELECT TRY(json_extract_string(text, [{quoted}])) AS f, text FROM json_rows"
    # A text that is not JSON has no list; JSON that is no object has a list of nulls.
    is_object = "f IS NOT NULL AND (text LIKE '{%' OR coalesce(TRY(json_type(text)), '') = 'OBJECT') AS is_object"
    return f"SELECT {', '.join(fields)}, {is_object} FROM ({extracted})"


Bad = list[tuple[int, str, bytes]]  # (row within the batch, reason, text)


def _texts(split: Split, batch_rows: int) -> Iterator[tuple[pa.Array, Bad, int]]:
    """(the texts of the rows that are UTF-8, the other rows, the number of both) of each batch."""
    held: list[NDArray[np.uint8]] = []
    lengths: list[NDArray[np.int64]] = []
    bad: Bad = []
    num_rows = num_bytes = 0
    for block, lines in _scanned_blocks(split):
        first, num = 0, len(lines.starts)
        while first < num:
            last = min(num, first + batch_rows - num_rows)
            part = lines.part(first, last)
            out = np.empty(int((part.stops - part.starts).sum()) + last - first, np.uint8)
            out = out[: gather_lines(block, part, out)]
            good = part.codes == LINE_GOOD
            held.append(out)
            lengths.append((part.stops - part.starts)[good] + 1)  # with its line feed
            for place in np.flatnonzero(~good).tolist():
                text = block[part.starts[place] : part.stops[place]][:MAX_VALUE_LEN].tobytes()
                bad.append((num_rows + place, LINE_REASONS[int(part.codes[place])], text))
            num_rows += last - first
            num_bytes += len(out)
            first = last
            if num_rows >= batch_rows or num_bytes >= _BATCH_BYTES:
                yield _text_array(held, lengths), bad, num_rows
                held, lengths, bad = [], [], []
                num_rows = num_bytes = 0
    if num_rows:
        yield _text_array(held, lengths), bad, num_rows


def _text_array(held: list[NDArray[np.uint8]], lengths: list[NDArray[np.int64]]) -> pa.Array:
    offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
    data = np.concatenate(held)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)


def _scanned_blocks(split: Split) -> Iterator[tuple[NDArray[np.uint8], Lines]]:
    """Blocks of whole rows, and their rows."""
    if split.source.format == "json":
        carry = b""
        for data, is_last in blocks(split):
            block, lines, unfinished = elements_of(carry + data, is_last=is_last)
            carry = block[unfinished:].tobytes()
            if len(carry) > MAX_LINE_LEN:
                raise changed(split, "has other objects")
            yield block, lines
        return
    # A row is one field: no text of JSON has a zero byte.
    dialect = Dialect(np.zeros(1, np.uint8), NO_QUOTE, 1)
    for text, _ in whole_lines(split):
        block = np.frombuffer(text, np.uint8)
        num = text.count(b"\n") + 1
        lines = Lines(np.empty(num, np.int64), np.empty(num, np.int64), np.empty(num, np.uint8))
        num = scan_lines(block, dialect, np.ones(1, np.uint8), lines)
        yield block, lines.part(0, num)
