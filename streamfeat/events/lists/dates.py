"""Dates of lists as ISO text."""

import re
from datetime import UTC, date, datetime

_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")


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
    except ValueError:
        return f"{year:04d}-{month:02d}-{day_of_month:02d}"


def from_unix(seconds: int | float | None) -> str:
    """The ISO text of Unix seconds; empty for None and 0, with which sites say "never"."""
    if not seconds:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
