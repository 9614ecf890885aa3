"""Cuts event files into splits: ranges of whole rows of text or row groups with about the same number of rows."""

from collections.abc import Sequence

from streamfeat.events.json_elements import count_elements
from streamfeat.events.parquet import row_group_sizes
from streamfeat.events.row_counts import RowCount, count_rows
from streamfeat.events.source import Source
from streamfeat.events.whole_files import count_records, is_read_whole
from streamfeat.records import Frozen

ROWS_PER_SPLIT = 2_500_000


class Split(Frozen):
    """A range of rows of one file. One split task reads it."""

    number: int  # over all files, in input order
    source: Source
    num_rows: int
    first_row: int  # 1-based row (Parquet) or record (text: a line, or several if `source.over_lines`) in the file
    byte_start: int = 0  # text: range of bytes in the decompressed file
    byte_end: int = 0
    first_row_group: int = 0  # Parquet: range of row groups
    num_row_groups: int = 0


def plan_splits(sources: Sequence[Source], rows_per_split: int = ROWS_PER_SPLIT) -> list[Split]:
    """Cuts each file into splits of about `rows_per_split` rows, numbered in input order.

    Text is read once to count its rows; the source of its splits says what was found out about rows over several lines.
    A file that is compressed or in another encoding is one split, because it must be read from its start; so is a file
    that is read whole. A file without rows has no splits. Raises DataError if a gzip file is damaged.
    """
    splits: list[Split] = []
    for recognised in sources:
        source = recognised
        if source.format == "parquet":
            parts = _parquet_parts(source, rows_per_split)
        elif is_read_whole(source):
            num_rows = count_records(source)
            parts = [{"num_rows": num_rows, "first_row": 1}] if num_rows else []
        elif source.format == "json":
            parts = _parts(source, count_elements(source, rows_per_split), 0, rows_per_split)
        else:
            source, parts = _text_parts(source, rows_per_split)
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


def _text_parts(source: Source, rows_per_split: int) -> tuple[Source, list[dict[str, int]]]:
    """Byte ranges of `rows_per_split` rows each, and the source with what counting them found out."""
    first_row = source.first_line - 1 + source.header  # 0-based
    count = count_rows(source, first_row, rows_per_split)
    source = source.model_copy(update={"over_lines": count.over_lines, "rows_note": count.note})
    return source, _parts(source, count, first_row, rows_per_split)


def _parts(source: Source, count: RowCount, first_row: int, rows_per_split: int) -> list[dict[str, int]]:
    """The byte ranges of splits; `first_row` is the first one (0-based) that is no header."""
    starts = count.starts
    if source.compression == "gzip" or source.encoding:
        starts = starts[:1]
    ends = [*starts[1:], count.content_end][: len(starts)]
    parts = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first = first_row + i * rows_per_split
        last = count.num_rows if end == count.content_end else first + rows_per_split
        parts.append({"num_rows": last - first, "first_row": first + 1, "byte_start": start, "byte_end": end})
    return parts


def rows_notes(splits: Sequence[Split]) -> list[str]:
    """What counting the rows found out that the user should know, a line for each file."""
    return list(dict.fromkeys(f"{s.source.path}: {s.source.rows_note}" for s in splits if s.source.rows_note))
