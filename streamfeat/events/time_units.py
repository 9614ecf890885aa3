"""What numbers count that are times: how many to the second, and from when. Python, SQL and the advice use this table.

Sources: Unix time; .NET's DateTime.Ticks; Windows' FILETIME; the times of Chromium's history; Apple's reference date,
in seconds (CFAbsoluteTime) and, as of iOS 11, in nanoseconds.
"""

from typing import NamedTuple

from streamfeat.events.source import SourceTimeUnit


class TimeUnitFacts(NamedTuple):
    """A unit of numeric times."""

    words: str  # for the user
    ticks: int  # to the second
    start: int  # what 0 is, in Unix seconds
    first: int  # the first year for which such numbers are usual


TIME_UNITS: dict[str, TimeUnitFacts] = {
    "s": TimeUnitFacts("seconds", 1, 0, 1973),
    "ms": TimeUnitFacts("milliseconds", 10**3, 0, 1990),
    "us": TimeUnitFacts("microseconds", 10**6, 0, 1990),
    "ns": TimeUnitFacts("nanoseconds", 10**9, 0, 1995),
    "dotnet": TimeUnitFacts("ticks of .NET", 10**7, -62_135_596_800, 2000),
    "filetime": TimeUnitFacts("FILETIME of Windows", 10**7, -11_644_473_600, 1995),
    "webkit": TimeUnitFacts("microseconds since 1601, as browsers write them", 10**6, -11_644_473_600, 2000),
    "apple": TimeUnitFacts("seconds since 2001, as Apple writes them", 1, 978_307_200, 2001),
    "apple-ns": TimeUnitFacts("nanoseconds since 2001, as Apple writes them", 10**9, 978_307_200, 2017),
}
# Upper bounds of magnitude: 10^11 s is the year 5138, 10^11 ms is 1973, and so on.
_MAGNITUDES: tuple[tuple[float, SourceTimeUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (float("inf"), "ns"))
UNIX_UNITS = ("s", "ms", "us", "ns")
DAY_UNITS = {"days": "days since 1970", "excel-days": "days of a spreadsheet"}


def by_magnitude(number: float) -> SourceTimeUnit:
    """The unit of a finite number since 1970, by its size alone."""
    return next(unit for bound, unit in _MAGNITUDES if number < bound)


def words_of(unit: str) -> str:
    """The name of a unit of numbers, for the user."""
    return DAY_UNITS[unit] if unit in DAY_UNITS else TIME_UNITS[unit].words
