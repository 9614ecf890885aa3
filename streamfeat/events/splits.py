"""Cuts event files into splits: ranges of whole lines or row groups with about the same number of rows."""

from collections.abc import Sequence

import numpy as np

from streamfeat.errors import StorageError
from streamfeat.events.parquet import row_group_sizes
from streamfeat.events.source import Source
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text
from streamfeat.events.whole_files import count_records, is_read_whole
from streamfeat.records import Frozen

ROWS_PER_SPLIT = 2_500_000
_BLOCK_BYTES = 1 << 22


class Split(Frozen):
    """A range of rows of one file. One split task reads it."""

    number: int  # over all files, in input order
    source: Source
    num_rows: int
    first_row: int  # 1-based row (Parquet), record (read whole) or physical line (text) of its first row in the file
    byte_start: int = 0  # text: range of bytes in the decompressed file
    byte_end: int = 0
    first_row_group: int = 0  # Parquet: range of row groups
    num_row_groups: int = 0


def plan_splits(sources: Sequence[Source], rows_per_split: int = ROWS_PER_SPLIT) -> list[Split]:
    """Cuts each file into splits of about `rows_per_split` rows, numbered in input order.

    Text is read once to count its lines. A file that is compressed or in another encoding is one split, because it must
    be read from its start; so is a file that is read whole. A file without rows has no splits. Raises DataError if a
    gzip file is damaged.
    """
    splits: list[Split] = []
    for source in sources:
        if source.format == "parquet":
            parts = _parquet_parts(source, rows_per_split)
        elif is_read_whole(source):
            num_rows = count_records(source)
            parts = [{"num_rows": num_rows, "first_row": 1}] if num_rows else []
        else:
            parts = _text_parts(source, rows_per_split)
        splits += [Split(number=len(splits) + i, source=source, **part) for i, part in enumerate(parts)]
    return splits


def _parquet_parts(source: Source, rows_per_split: int) -> list[dict[str, int]]:
    parts: list[dict[str, int]] = []
    first_row = 1
    for group, num_rows in enumerate(row_group_sizes(source.path)):
        if not parts or (parts[-1]["num_rows"] and parts[-1]["num_rows"] + num_rows > rows_per_split):
            parts.append({"num_rows": 0, "first_row": first_row, "first_row_group": group, "num_row_groups": 0})
        parts[-1]["num_rows"] += num_rows
        parts[-1]["num_row_groups"] += 1
        first_row += num_rows
    return [part for part in parts if part["num_rows"]]


def _text_parts(source: Source, rows_per_split: int) -> list[dict[str, int]]:
    """Byte ranges of `rows_per_split` lines each. Blank lines at the end of the file are not rows."""
    first_line = source.first_line - 1 + source.header  # 0-based
    starts, num_lines, content_end = _find_lines(source, first_line, rows_per_split)
    if source.compression == "gzip" or source.encoding:
        starts = starts[:1]
    ends = [*starts[1:], content_end][: len(starts)]
    parts = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first = first_line + i * rows_per_split
        last = num_lines if end == content_end else first + rows_per_split
        parts.append({"num_rows": last - first, "first_row": first + 1, "byte_start": start, "byte_end": end})
    return parts


def _find_lines(source: Source, first: int, every: int) -> tuple[list[int], int, int]:
    """The starts of the lines first, first + every, … (0-based); the number of lines; the end of their content.

    Blank lines at the end are not counted, and no start is after the content.
    """
    starts: list[int] = []
    num_lines = content_end = 0
    base = line_feeds = 0  # bytes and line feeds before this block
    try:
        with open_text(source.path, source.compression, source.encoding) as stream:
            while data := stream.read(_BLOCK_BYTES):
                feeds = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
                content_len = len(data.rstrip(b"\r\n"))
                if content_len:
                    content_end = base + content_len
                    num_lines = line_feeds + int(np.searchsorted(feeds, content_len)) + 1
                line = first + len(starts) * every
                if line == 0:
                    starts.append(len(BOM) if data.startswith(BOM) else 0)
                    line = every
                # Line k starts after line feed k - 1.
                while line <= line_feeds + len(feeds):
                    starts.append(base + int(feeds[line - 1 - line_feeds]) + 1)
                    line += every
                base += len(data)
                line_feeds += len(feeds)
    except GZIP_ERRORS as error:
        raise damaged_gzip(source.path, error) from None
    except OSError as error:
        raise StorageError(f"{source.path}: cannot be read ({error.strerror}); check the disk and try again") from None
    return [start for start in starts if start < content_end], num_lines, content_end
