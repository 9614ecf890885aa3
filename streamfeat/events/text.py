"""Delimited text: writes the good rows of a split, batch by batch, into a temporary file that DuckDB reads."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfeat.errors import DataError, StorageError
from streamfeat.events.row_counts import dialect_of
from streamfeat.events.source import Source
from streamfeat.events.splits import Split
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text
from streamfeat.events.time_casts import joined_sql
from streamfeat.events.words_for_nobody import with_marks
from streamfeat.kernels.lines import (
    LINE_GOOD,
    LINE_INVALID_UTF8,
    LINE_MALFORMED,
    LINE_REPAIRED,
    MAX_LINE_LEN,
    Lines,
    gather_lines,
    scan_lines,
)
from streamfeat.kernels.records import scan_records

_BLOCK_BYTES = 1 << 22
_BUFFER_BYTES = 1 << 22  # of DuckDB: with its default of 32 MB, the buffer took more time than a small batch
_BATCH_BYTES = 1 << 26  # a batch of very long lines ends early
LINE_REASONS = {LINE_MALFORMED: "malformed_line", LINE_INVALID_UTF8: "invalid_utf8"}


@dataclass
class LineBatch:
    """Consecutive rows of a file. The good ones are in the temporary file, the bad ones here."""

    num_rows: int = 0
    num_bytes: int = 0
    bad: list[tuple[int, str, bytes]] = field(default_factory=list)  # (row within the batch, reason, its text)
    has_marks: bool = False  # whether quoted words have marks in the file: see words_for_nobody.py


def write_batches(split: Split, file: Path, batch_rows: int, max_value_len: int) -> Iterator[LineBatch]:
    """Yields batches of up to `batch_rows` rows. For each batch, `file` is rewritten with its good rows.

    `max_value_len` bytes of a bad row are kept. Raises DataError if the event file has changed since it was planned.
    """
    batch = LineBatch()
    stream = file.open("wb")
    try:
        # DuckDB drops a byte order mark at the start of a file. This one protects a mark that belongs to the first row.
        stream.write(BOM)
        for block, lines in _scanned_blocks(split):
            first, num_lines = 0, len(lines.starts)
            while first < num_lines:
                last = min(num_lines, first + batch_rows - batch.num_rows)
                rows = _add(batch, block, lines.part(first, last), max_value_len)
                marked = with_marks(rows) if split.source.quote else None
                stream.write(rows if marked is None else marked)
                batch.has_marks |= marked is not None
                first = last
                if batch.num_rows >= batch_rows or batch.num_bytes >= _BATCH_BYTES:
                    stream.close()
                    yield batch
                    batch = LineBatch()
                    stream = file.open("wb")
                    stream.write(BOM)
        stream.close()
        if batch.num_rows:
            yield batch
    except OSError as error:
        raise StorageError(f"{file}: cannot be written ({error.strerror}); make space or grant access") from None
    finally:
        with contextlib.suppress(OSError):  # on a full disk, writing the rest of the buffer fails again
            stream.close()


def _add(batch: LineBatch, block: NDArray[np.uint8], lines: Lines, max_value_len: int) -> memoryview:
    """Counts rows as those of the batch. Returns the text of the good ones."""
    starts, stops, codes = lines
    out = np.empty(int((stops - starts).sum()) + len(starts), np.uint8)
    num_bytes = gather_lines(block, lines, out)
    for line in np.flatnonzero((codes != LINE_GOOD) & (codes != LINE_REPAIRED)):
        value = block[starts[line] : min(int(stops[line]), int(starts[line]) + max_value_len)].tobytes()
        batch.bad.append((batch.num_rows + int(line), LINE_REASONS[int(codes[line])], value))
    batch.num_rows += len(starts)
    batch.num_bytes += num_bytes
    return out[:num_bytes].data


def _scanned_blocks(split: Split) -> Iterator[tuple[NDArray[np.uint8], Lines]]:
    """Blocks of whole rows, and their rows."""
    source = split.source
    dialect = dialect_of(source)
    roles = {*source.columns.values(), *source.joined}
    needed = np.array([column in roles for column in source.column_names], np.uint8)
    carry = b""  # the record that the last block began
    for data, is_last in blocks(split) if source.over_lines else whole_lines(split):
        data = bytearray(carry + data) if source.over_lines else data
        block = np.frombuffer(data, np.uint8)
        num = data.count(b"\n") + 2
        lines = Lines(np.empty(num, np.int64), np.empty(num, np.int64), np.empty(num, np.uint8))
        if source.over_lines:
            num = scan_records(block, dialect, needed, is_last, lines)
            carry = bytes(data[int(lines.starts[num]) :])
            if len(carry) > MAX_LINE_LEN:
                raise changed(split, "has other quotes")
        else:
            num = scan_lines(block, dialect, needed, lines)
        yield block, lines.part(0, num)


def changed(split: Split, how: str) -> DataError:
    """The error for a file that is not what was planned."""
    return DataError(f"{split.source.path}: {how} than before; do not change the file while it is read")


def blocks(split: Split) -> Iterator[tuple[bytes, bool]]:
    """The bytes of a split in blocks, and whether a block is the last one."""
    remaining = split.byte_end - split.byte_start
    try:
        with open_text(split.source.path, split.source.compression, split.source.encoding) as stream:
            stream.seek(split.byte_start)
            while remaining:
                data = stream.read(min(_BLOCK_BYTES, remaining))
                if not data:
                    raise changed(split, "is shorter")
                remaining -= len(data)
                yield data, not remaining
    except GZIP_ERRORS as error:
        raise damaged_gzip(split.source.path, error) from None
    except OSError as error:
        raise StorageError(
            f"{split.source.path}: cannot be read ({error.strerror}); check the disk and try again"
        ) from None


def whole_lines(split: Split) -> Iterator[tuple[bytearray, bool]]:
    """`blocks` of whole lines. A line that is too long is cut to one byte above the limit."""
    carry = bytearray()
    for data, is_last in blocks(split):
        carry += data
        cut = len(carry) if is_last else carry.rfind(b"\n") + 1
        if cut:
            yield carry[:cut], is_last
            carry = carry[cut:]
        del carry[MAX_LINE_LEN + 1 :]


def lines_relation(source: Source, file: Path) -> str:
    """SQL that reads the rows in `file`, in order: a VARCHAR column for each role; empty fields are NULL."""
    joined = {column: f"joined_{i}" for i, column in enumerate(source.joined)}
    roles = {column: role for role, column in source.columns.items()}
    names = [(roles | joined).get(column, f"unused_{i}") for i, column in enumerate(source.column_names)]
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
    path = str(file).replace("'", "''")
    selected = [
        f"replace({role}, ',', '.') AS {role}" if role in source.decimal_commas else role for role in roles.values()
    ]
    if joined:
        time = f"{joined_sql('timestamp', list(joined.values()))} AS timestamp"
        selected = [time if role == "timestamp" else role for role in selected]
    return (
        f"SELECT {', '.join(selected)} FROM read_csv('{path}', columns = {{{columns}}}, header = false, "
        f"auto_detect = false, delim = '{source.delimiter}', quote = '{source.quote}', escape = '{source.quote}', "
        f"new_line = '\\n', nullstr = '', parallel = false, max_line_size = {2 * MAX_LINE_LEN}, "
        f"buffer_size = {_BUFFER_BYTES})"
    )
