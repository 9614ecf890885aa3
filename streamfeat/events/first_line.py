"""Whether the first line of a text file names its columns or is data already."""

from collections.abc import Sequence

from streamfeat.events.column_values import is_time, number_of, share

_ROWS = 500
_NEARLY_ALL = 0.9


def is_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the fields of the first line look like those of `rows`, the other sampled lines.

    They do if the first line has a time where other lines have times, or a number where they have numbers. They do not
    if it has something else where they have times. Ids may be words. Without another line the first one stands for all.
    """
    if len(first) < 2:
        return False
    same = [row for row in rows[:_ROWS] if len(row) == len(first)] or [first]
    found = False
    for place, value in enumerate(first):
        column = [row[place] for row in same if row[place].strip()]
        if not column or not value.strip():
            continue
        if share(column, is_time) >= _NEARLY_ALL:
            if not is_time(value):
                return False
            found = True
        elif share(column, _is_number) >= _NEARLY_ALL:
            found = found or _is_number(value)
    return found


def _is_number(value: str) -> bool:
    return number_of(value) is not None
