"""Recognises what sampled numbers count that are times. Raises an error if several readings are usual."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import cast

from streamfeat.config import TimeUnit
from streamfeat.errors import ConfigError
from streamfeat.events.odd_times import newest_likely_time
from streamfeat.events.source import SourceTimeUnit
from streamfeat.events.time_units import DAY_UNITS, TIME_UNITS, UNIX_UNITS, by_magnitude, words_of

ANOTHER_COLUMN = "or name another column with --columns timestamp=NAME"
STRAY_SHARE = 0.01  # up to this share, values that do not fit are bad rows; with more, the file is ambiguous
SMALL_SHARE = 0.1  # with more values that stand for no time, the file is ambiguous

# Smaller values (1973 in seconds) fit every unit.
_SMALL = 1e8
# From this year on a Unix time is one without a look at other units: MovieLens-100K is of 1997. Until 2027, seconds
# since 2001 are Unix times of before this year.
_SURE_YEAR = 1997

_DIGITS_OF_DATES = (8, 10, 12, 14, 17)  # YYYYMMDD, and with hours, minutes, seconds and milliseconds
_YEARS = range(1900, 2101)  # of dates as whole numbers
_SCIENTIFIC = re.compile(r"\s*\+?\d(?:\.(\d*))?[eE]\+?(\d+)\s*")
# Of numbers with an exponent: so many and fewer are no times. Spreadsheets write up to five, C and NumPy six.
_FEW_DECIMALS, _MOST_DECIMALS = 5, 6

# Spreadsheets count days from here, so that serial days after February 1900 are right.
_EXCEL_START = datetime(1899, 12, 30, tzinfo=UTC)
_UNIX_START = datetime(1970, 1, 1, tzinfo=UTC)
_LIKELY = range(1990, 2050)  # years that make a reading worth naming

_CONVERT = "if they count anything else, write them as 2020-12-31 or as seconds since 1970"


def unit_of_numbers(path: str, column: str, numbers: Sequence[str], asked: TimeUnit) -> tuple[SourceTimeUnit, str]:
    """Unit, and a phrase about it for the user, from sampled numbers as text.

    Raises ConfigError if no reading or several readings give usual dates, and if digits are missing.
    """
    if asked in (*TIME_UNITS, *DAY_UNITS):
        return cast(SourceTimeUnit, asked), f"times in {words_of(asked)} (as asked)"
    if asked == "yyyymmdd":
        return asked, "dates as whole numbers such as 20200131 (as asked)"
    if asked != "auto":
        raise ConfigError(
            f"{path}: column {column!r} holds numbers such as {numbers[0][:40]!r}, which --time-unit {asked} does not "
            "fit; leave it out"
        )
    if not numbers:
        return "s", "times in seconds (there is no value to recognise them by)"
    nonzero = [number for number in numbers if float(number)]
    dates = [number for number in nonzero if _is_date(number)]
    are_dates = bool(dates) and len(dates) >= (1 - STRAY_SHARE) * len(nonzero)
    check_times_of_nothing(
        path, column, len(numbers) - len(nonzero), len(numbers), "0", "yyyymmdd" if are_dates else "s"
    )
    if are_dates:
        if any(len(_whole(number)) == len("2020013112") for number in dates):  # as seconds they are of 2030 to 2036
            raise ConfigError(
                f"{path}: column {column!r} holds numbers such as {dates[0]}, which may be dates with an hour or "
                "seconds since 1970; say which with --time-unit yyyymmdd or --time-unit s"
            )
        return "yyyymmdd", "dates as whole numbers such as 20200131, UTC assumed (recognised)"
    _check_digits(path, column, nonzero)
    unit = _of_size(path, column, [float(number) for number in nonzero])
    rounded = sum(_loses_seconds(number, _MOST_DECIMALS) for number in nonzero)
    coarse = ", rounded to more than a second" if 2 * rounded > len(nonzero) else ""
    return unit, f"times in {words_of(unit)} (recognised){coarse}"


def check_times_of_nothing(path: str, column: str, num: int, of: int, written: str, unit: str) -> None:
    """Raises ConfigError if more than a tenth of the values are 0 or the first moment of 1970: as a rule they stand for
    no time."""
    if num > SMALL_SHARE * of:
        raise ConfigError(
            f"{path}: column {column!r}: {num} of {of} times looked at are {written}, which as a rule stands for no "
            f"time; leave those rows out, or empty their times, or say with --time-unit {unit} that all are right"
        )


def _whole(number: str) -> str:
    """The digits before the point."""
    return number.partition(".")[0]


def _is_date(number: str) -> bool:
    """Whether the digits of a whole number are a date of the calendar, maybe with a time of day."""
    whole, _, decimals = number.partition(".")
    if len(whole) not in _DIGITS_OF_DATES or not whole.isdecimal() or decimals.strip("0"):
        return False
    fields = [int(whole[:4]), *(int(whole[k : k + 2]) for k in range(4, min(len(whole), 14), 2))]
    try:
        return datetime(*fields, tzinfo=UTC).year in _YEARS  # type: ignore[arg-type,misc]
    except ValueError:
        return False


def _check_digits(path: str, column: str, numbers: Sequence[str]) -> None:
    """Raises ConfigError if most numbers are rounded to more than a second, as 1.58E+12 is."""
    rounded = [number for number in numbers if _loses_seconds(number, _FEW_DECIMALS)]
    if 2 * len(rounded) > len(numbers):
        raise ConfigError(
            f"{path}: column {column!r} holds rounded numbers such as {rounded[0][:40]!r}, as spreadsheets write them: "
            "digits of the time are missing; export the file again with this column as text or as whole numbers, or, "
            "if no digit is missing, give the unit with --time-unit s|ms|us|ns"
        )


def _loses_seconds(number: str, most_decimals: int) -> bool:
    """Whether a number with an exponent and at most so many decimals is rounded to more than a second."""
    match = _SCIENTIFIC.fullmatch(number)
    if match is None or len(match[1] or "") > most_decimals or not _SMALL <= float(number) < float("inf"):
        return False
    missing = int(match[2]) - len(match[1] or "")
    return missing > 0 and 10**missing > TIME_UNITS[by_magnitude(float(number))].ticks


def _of_size(path: str, column: str, numbers: Sequence[float]) -> SourceTimeUnit:
    """The unit of numbers that are not 0."""
    evidence = [n for n in numbers if _SMALL <= n < float("inf")]
    small = [n for n in numbers if 0 < n < _SMALL]
    if small and not evidence:
        raise _small_numbers(path, column, small)
    if not evidence:
        return "s"
    if len(small) > SMALL_SHARE * len(numbers):
        raise ConfigError(
            f"{path}: column {column!r} mixes {len(small)} numbers such as {small[0]:g} with {len(evidence)} times "
            f"such as {evidence[0]:.0f}; leave out the rows without a time, or say with --time-unit s|ms|us|ns that "
            "all are right"
        )
    usual = _usual_units(path, evidence)
    if len(usual) == 1:
        return cast(SourceTimeUnit, usual[0])
    if usual:
        readings = [f"{words_of(unit)} they are {_dates_of(unit, evidence)} (--time-unit {unit})" for unit in usual]
        raise ConfigError(
            f"{path}: column {column!r} holds numbers such as {evidence[0]:.0f}: as {', or as '.join(readings)}; say "
            f"which, {ANOTHER_COLUMN}"
        )
    units = Counter(map(by_magnitude, evidence))
    unit, count = units.most_common(1)[0]
    if count < (1 - STRAY_SHARE) * len(evidence):
        found = ", ".join(f"{n} of {len(evidence)} look like {words_of(u)}" for u, n in units.most_common())
        raise ConfigError(
            f"{path}: column {column!r} mixes magnitudes: {found}; give the right unit with --time-unit s|ms|us|ns, "
            "or split the file"
        )
    return unit


def _usual_units(path: str, numbers: Sequence[float]) -> list[str]:
    """The units in which nearly all `numbers` are of usual years, and not later than a day after the file was last
    changed. Unix times of _SURE_YEAR or later need no other look."""
    newest = newest_likely_time(path)

    def fits(unit: str, first_year: int) -> bool:
        facts = TIME_UNITS[unit]
        oldest = datetime(first_year, 1, 1, tzinfo=UTC).timestamp()
        num = sum(oldest <= n / facts.ticks + facts.start <= newest for n in numbers)
        return num >= (1 - STRAY_SHARE) * len(numbers)

    sure = [unit for unit in UNIX_UNITS if fits(unit, _SURE_YEAR)]
    return sure or [unit for unit in TIME_UNITS if fits(unit, TIME_UNITS[unit].first)]


def _dates_of(unit: str, numbers: Sequence[float]) -> str:
    facts = TIME_UNITS[unit]
    ends = sorted(numbers)[len(numbers) // 200], sorted(numbers)[-1 - len(numbers) // 200]  # without stray ones
    first, last = (datetime.fromtimestamp(end / facts.ticks + facts.start, UTC).date() for end in ends)
    return f"{first} to {last}"


def _small_numbers(path: str, column: str, numbers: Sequence[float]) -> ConfigError:
    """The error for numbers that are no times in seconds after 1973; with the readings that give usual dates."""
    low, high = min(numbers), max(numbers)
    readings = [
        f"{DAY_UNITS[unit]} they are {days[0]} to {days[1]} (--time-unit {unit})"
        for unit, start in (("excel-days", _EXCEL_START), ("days", _UNIX_START))
        if (days := _dates_after(start, low, high)) is not None
    ]
    as_days = "".join(f"; as {reading}" for reading in readings)
    return ConfigError(
        f"{path}: column {column!r} holds numbers from {low:g} to {high:g}, which as seconds would be of before 1974"
        f"{as_days}; say with --time-unit what they count (s also if they only give the order), {ANOTHER_COLUMN}; "
        f"{_CONVERT}"
    )


def _dates_after(start: datetime, low: float, high: float) -> tuple[date, date] | None:
    """The dates so many days after `start`, if they are of likely years."""
    if high > (datetime.max.replace(tzinfo=UTC) - start).days:
        return None
    first, last = (start + timedelta(days=int(days)) for days in (low, high))
    return (first.date(), last.date()) if first.year in _LIKELY and last.year in _LIKELY else None
