"""Dates of lists as ISO text."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from streamfeat.errors import DataError

_MAX_TEXT = 80  # characters of a value that is no time
_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_SHORT_DATE = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4}|\d{2})")


def day(text: str) -> str:
    """A date year-month-day, in any of the delimiters `-/.`, as ISO text.

    Empty for no date, which sites also write as 0000-00-00. A date with an unknown month or day (2015-04-00) is its
    first day. Anything else comes back as it is, so that the row is rejected with it.
    """
    match = _DATE.fullmatch(text.strip())
    return parts(*map(int, match.groups())) if match else text.strip()


def parts(year: int, month: int, day_of_month: int) -> str:
    """The ISO date of a year, month and day. 0 means unknown; without a year there is no date."""
    if not year:
        return ""
    try:
        return date(year, month or 1, day_of_month or 1).isoformat()
    except (ValueError, OverflowError):
        return f"{year:04d}-{month:02d}-{day_of_month:02d}"


def from_unix(seconds: Any) -> str:
    """The ISO text of Unix seconds; empty for None and 0, with which sites say "never". Anything else as text, so that
    the row is rejected with it."""
    if not seconds:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError, OverflowError, OSError):
        return str(seconds)[:_MAX_TEXT]


def days_of(path: str, values: Sequence[str]) -> list[str]:
    """The ISO dates of a column in which all dates are written in one way: year first, or day and month in either order
    with a year of two or four digits. Missing and other values come back as they are.

    The order of day and month is the one in which all values are dates. If both are, it is the one in which the rows
    are in order of time, newest first, as exports are. Raises DataError if that does not decide it either.
    """
    if any(_DATE.fullmatch(value) for value in values):
        return [day(value) for value in values]
    found = {place: match for place, value in enumerate(values) if (match := _SHORT_DATE.fullmatch(value))}
    readings = []
    for order in ("dmy", "mdy"):
        days = {place: _short_day(match, order) for place, match in found.items()}
        if days and all(days.values()):
            readings.append(days)
    newest_first = [days for days in readings if list(days.values()) == sorted(days.values(), reverse=True)]
    decided = (newest_first or readings)[:2]
    if not decided:
        return list(values)
    if differing := [place for place in found if len({days[place] for days in decided}) > 1]:
        example = differing[0]
        raise DataError(
            f"{path}: dates such as {values[example]!r} can be read with the day or with the month first; write them "
            f"as {decided[0][example]}"
        )
    return [decided[0].get(place, value) for place, value in enumerate(values)]


def _short_day(match: re.Match[str], order: str) -> str:
    """ISO text; empty if there is no such day."""
    first, second, year = (int(part) for part in match.groups())
    day_of_month, month = (first, second) if order == "dmy" else (second, first)
    try:
        return date(year if year > 99 else 2000 + year, month, day_of_month).isoformat()
    except ValueError:
        return ""
