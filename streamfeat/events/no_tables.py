"""Text that is no table of events from its first line on: web pages, and tables below a few lines of other text."""

import re
from collections.abc import Sequence

_HTML = re.compile(r"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE)
_QUOTED = re.compile('"[^"]*"')
_MOST_LINES = 50  # above a table
_FEWEST_FIELDS = 3  # of a table of events


def why_no_table(path: str, lines: Sequence[str], delimiters: Sequence[str]) -> str:
    """What is wrong with the file whose first lines are `lines`, and what to do; "" if it may be a table.

    A table may stand below lines of another kind: blank ones, comments, a title.
    """
    if _HTML.match(lines[0]):
        return f"{path}: a web page, not a table of events; the export may have asked for a login: get it again"
    lines, first = [_QUOTED.sub("", line) for line in lines], lines[0]
    if any(delimiter in lines[0] for delimiter in delimiters):
        return ""
    for delimiter in delimiters:
        fields = [line.count(delimiter) + 1 for line in lines]
        width = max(set(fields[-_MOST_LINES:]), key=fields[-_MOST_LINES:].count)
        above = next((i for i, num in enumerate(fields[:_MOST_LINES]) if num == width), 0)
        if width >= _FEWEST_FIELDS and above and all(num == 1 for num in fields[:above]):
            what = "is" if above == 1 else f"and {above - 1} more are"
            return (
                f"{path}: the first line, {first[:60]!r}, {what} no part of the table below; leave it out: "
                f"tail -n +{above + 1} '{path}' > events.csv"
            )
    return ""
