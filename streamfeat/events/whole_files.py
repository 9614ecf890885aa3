"""Event files that are read whole, as Arrow tables with a column of text for each role."""

from collections.abc import Callable, Iterator

import pyarrow as pa

from streamfeat.events.lists.sites import SITES, read_list
from streamfeat.events.source import Format, Source

# Each yields tables in file order. Beside the roles a table may have `row` (int64: the number of its record in the
# file, from 1; without it, records are counted) and `undated` (bool: the record has no time of its own).
_READERS: dict[Format, Callable[[Source], Iterator[pa.Table]]] = dict.fromkeys(SITES, read_list)


def is_read_whole(source: Source) -> bool:
    """Whether the file is read by `read_whole`, as one split."""
    return source.format in _READERS


def read_whole(source: Source) -> Iterator[pa.Table]:
    """The tables of the file. Raises DataError if it is damaged."""
    return _READERS[source.format](source)


def count_records(source: Source) -> int:
    """The rows of all tables of `read_whole`."""
    return sum(len(table) for table in read_whole(source))
