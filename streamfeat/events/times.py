"""Recognises how a file's times are written, from a sample. Raises an error if several readings are possible."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from streamfeat.config import TimeUnit
from streamfeat.errors import ConfigError
from streamfeat.events.source import SourceTimeUnit
from streamfeat.events.time_forms import MIDNIGHT, is_known_zone, parts_of
from streamfeat.events.time_zones import why_unclear

# Upper bounds of magnitude: 10^11 s is the year 5138, 10^11 ms is 1973, and so on.
_MAGNITUDES: tuple[tuple[float, SourceTimeUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (float("inf"), "ns"))
# Smaller values (1973 in seconds) fit every unit.
_SMALL = 1e8
_SMALL_SHARE = 0.1  # with more small numbers among larger ones, the file is ambiguous
_STRAY_SHARE = 0.01  # up to this share, values that do not fit are bad rows; with more, the file is ambiguous

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DIGITS_OF_DATES = (8, 10, 12, 14)  # YYYYMMDD, and with hours, minutes and seconds
_YEARS = range(1900, 2101)  # of dates as whole numbers

_NUMERIC_UNITS: dict[str, str] = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "days": "days since 1970",
    "excel-days": "days of a spreadsheet",
}
_DAY_ORDERS: tuple[tuple[SourceTimeUnit, str], ...] = (("dmy", "day first"), ("mdy", "month first"))
# Spreadsheets count days from here, so that serial days after February 1900 are right.
_EXCEL_START = datetime(1899, 12, 30, tzinfo=UTC)
_UNIX_START = datetime(1970, 1, 1, tzinfo=UTC)
_LIKELY = range(1990, 2050)  # years that make a reading worth naming

_ANOTHER_COLUMN = "or name another column with --columns timestamp=NAME"


def joined_times(columns: Sequence[Sequence[str]]) -> list[str]:
    """The times of rows whose date and time of day are in several columns, as text."""
    return [
        " ".join([re.sub(MIDNIGHT, "", first), *rest]).strip() if first.strip() else ""
        for first, *rest in zip(*columns, strict=True)
    ]


def recognise_times(path: str, column: str, values: Iterable[str], asked: TimeUnit) -> tuple[SourceTimeUnit, str]:
    """Unit, and a phrase about it for the user, from sampled times as text. `asked` is the unit that the user gave, for
    all values that do not say it themselves, as ISO times do.

    Without any value the unit is seconds, or the asked one. Raises ConfigError for text that is no time in any form,
    for numbers and dates that can be read in several ways, and for time zones with several meanings.
    """
    texts = [value.strip() for value in values if value.strip()]
    numbers = [value for value in texts if _NUMBER.fullmatch(value)]
    iso = [parts for value in texts if (parts := parts_of("iso", value)) is not None]
    if len(iso) > len(numbers):
        _check_zones(path, column, iso)
        return "iso", _zones_note("ISO times", iso)
    if 2 * len(numbers) >= len(texts):
        return _of_numbers(path, column, numbers, asked)
    return _of_texts(path, column, texts, asked)


def _of_numbers(path: str, column: str, numbers: list[str], asked: TimeUnit) -> tuple[SourceTimeUnit, str]:
    if asked in ("s", "ms", "us", "ns", "days", "excel-days"):
        return asked, f"times in {_NUMERIC_UNITS[asked]} (as asked)"
    if asked == "yyyymmdd":
        return asked, "dates as whole numbers such as 20200131 (as asked)"
    if asked != "auto":
        raise ConfigError(
            f"{path}: column {column!r} holds numbers such as {numbers[0][:40]!r}, which --time-unit {asked} does not "
            "fit; leave it out"
        )
    if not numbers:
        return "s", "times in seconds (there is no value to recognise them by)"
    nonzero = [number for number in numbers if float(number)]  # 0 often stands for a missing time
    dates = [number for number in nonzero if _is_date(number)]
    if dates and len(dates) >= (1 - _STRAY_SHARE) * len(nonzero):
        if any(len(_whole(number)) == len("2020013112") for number in dates):  # as seconds they are of 2030 to 2036
            raise ConfigError(
                f"{path}: column {column!r} holds numbers such as {dates[0]}, which may be dates with an hour or "
                "seconds since 1970; say which with --time-unit yyyymmdd or --time-unit s"
            )
        return "yyyymmdd", "dates as whole numbers such as 20200131, UTC assumed (recognised)"
    unit = _of_magnitude(path, column, [float(number) for number in nonzero])
    return unit, f"times in {_NUMERIC_UNITS[unit]} (recognised)"


def _whole(number: str) -> str:
    """The digits before the point."""
    return number.partition(".")[0]


def _is_date(number: str) -> bool:
    """Whether the digits of a whole number are a date of the calendar, maybe with a time of day."""
    whole, _, decimals = number.partition(".")
    if len(whole) not in _DIGITS_OF_DATES or not whole.isdecimal() or decimals.strip("0"):
        return False
    fields = [int(whole[:4]), *(int(whole[k : k + 2]) for k in range(4, len(whole), 2))]
    try:
        return datetime(*fields, tzinfo=UTC).year in _YEARS  # type: ignore[arg-type,misc]
    except ValueError:
        return False


def _of_magnitude(path: str, column: str, numbers: list[float]) -> SourceTimeUnit:
    """The unit of numbers that are not 0."""
    evidence = [n for n in numbers if _SMALL <= n < float("inf")]
    small = [n for n in numbers if 0 < n < _SMALL]
    units = Counter(next(unit for bound, unit in _MAGNITUDES if n < bound) for n in evidence)
    if small and not units:
        raise _small_numbers(path, column, small)
    if not units:
        return "s"
    if len(small) > _SMALL_SHARE * len(numbers):
        raise ConfigError(
            f"{path}: column {column!r} mixes {len(small)} numbers such as {small[0]:g} with {len(evidence)} times "
            f"such as {evidence[0]:.0f}; leave out the rows without a time, or say with --time-unit s|ms|us|ns that "
            "all are right"
        )
    unit, count = units.most_common(1)[0]
    if count < (1 - _STRAY_SHARE) * len(evidence):
        found = ", ".join(f"{n} of {len(evidence)} look like {_NUMERIC_UNITS[u]}" for u, n in units.most_common())
        raise ConfigError(
            f"{path}: column {column!r} mixes magnitudes: {found}; give the right unit with --time-unit s|ms|us|ns, "
            "or split the file"
        )
    return unit


def _small_numbers(path: str, column: str, numbers: list[float]) -> ConfigError:
    """The error for numbers that are no times in seconds after 1973; with the readings that give usual dates."""
    low, high = min(numbers), max(numbers)
    readings = [
        f"{_NUMERIC_UNITS[unit]} they are {days[0]} to {days[1]} (--time-unit {unit})"
        for unit, start in (("excel-days", _EXCEL_START), ("days", _UNIX_START))
        if (days := _dates_after(start, low, high)) is not None
    ]
    as_days = "".join(f"; as {reading}" for reading in readings)
    return ConfigError(
        f"{path}: column {column!r} holds numbers from {low:g} to {high:g}, which as seconds would be of before 1974"
        f"{as_days}; say with --time-unit what they count (s also if they only give the order), {_ANOTHER_COLUMN}"
    )


def _dates_after(start: datetime, low: float, high: float) -> tuple[date, date] | None:
    """The dates so many days after `start`, if they are of likely years."""
    if high > (datetime.max.replace(tzinfo=UTC) - start).days:
        return None
    first, last = (start + timedelta(days=int(days)) for days in (low, high))
    return (first.date(), last.date()) if first.year in _LIKELY and last.year in _LIKELY else None


def _of_texts(path: str, column: str, texts: list[str], asked: TimeUnit) -> tuple[SourceTimeUnit, str]:
    """The unit of text that is neither ISO nor a number."""
    by_form: dict[SourceTimeUnit, list[dict[str, str]]] = {
        form: [parts for text in texts if (parts := parts_of(form, text)) is not None]
        for form in ("ctime", "parts", "yyyymmdd", "dmy", "mdy")
    }
    form = max(by_form, key=lambda form: len(by_form[form]))
    found = by_form[form]
    if 2 * len(found) <= len(texts):
        raise ConfigError(
            f"{path}: column {column!r} holds {texts[0][:40]!r}, which is neither a number nor an ISO time such as "
            f"2013-04-03T22:45:08Z nor a date in another known form; convert it, {_ANOTHER_COLUMN}"
        )
    example = next(text for text in texts if parts_of(form, text) is not None)
    if form in ("dmy", "mdy"):
        form = asked if asked in ("dmy", "mdy") else _day_order(path, column, texts)
        found = by_form[form]
    _check_zones(path, column, found)
    words = {"dmy": ", day first", "mdy": ", month first", "parts": ", year first"}.get(form, "")
    return form, _zones_note(f"times such as {example[:40]}{words}", found)


def _day_order(path: str, column: str, texts: list[str]) -> SourceTimeUnit:
    """Whether dates begin with the day or with the month: what all sampled ones allow. A year of two digits may be
    first, too."""
    fits: Counter[str] = Counter()
    num_dates, example = 0, ""
    for text in texts:
        read = [parts for form in ("dmy", "mdy") if (parts := parts_of(form, text)) is not None]
        num_dates += bool(read)
        orders = set()
        for parts in read:
            orders |= _orders(parts)
        fits.update(orders)
        example = example or (text if len(orders) > 1 else "")
    allowed = [order for order in ("dmy", "mdy", "ymd") if fits[order] >= (1 - _STRAY_SHARE) * num_dates]
    if allowed == ["dmy"]:
        return "dmy"
    if allowed == ["mdy"]:
        return "mdy"
    if not allowed or allowed == ["ymd"]:
        first = next(text for text in texts if parts_of("dmy", text) or parts_of("mdy", text))
        raise ConfigError(
            f"{path}: column {column!r} holds dates such as {first[:40]!r} in several orders or with the year first; "
            f"write them as 2020-12-31, {_ANOTHER_COLUMN}"
        )
    beginnings = {"dmy": "day", "mdy": "month", "ymd": "year"}
    raise ConfigError(
        f"{path}: column {column!r} holds dates such as {example[:40]!r}, and all of those looked at may begin with "
        f"the {' or the '.join(beginnings[order] for order in allowed)}; say which with --time-unit dmy or mdy"
        + (", or write them as 2020-12-31" if "ymd" in allowed else "")
    )


def _orders(parts: dict[str, str]) -> set[str]:
    """The orders in which a date can be read that matched with these parts, first and second in their order."""
    first, second = (text for name, text in parts.items() if name in ("d", "m"))
    if not (first.isdecimal() and second.isdecimal()):  # a month's name
        return {"dmy" if first.isdecimal() else "mdy"}
    orders = {
        order
        for order, day, month in (("dmy", first, second), ("mdy", second, first))
        if 1 <= int(day) <= 31 and 1 <= int(month) <= 12
    }
    year_first = len(parts["y"]) == 2 and 1 <= int(second) <= 12 and 1 <= int(parts["y"]) <= 31
    return orders | ({"ymd"} if year_first else set())


def _check_zones(path: str, column: str, found: Sequence[dict[str, str]]) -> None:
    """Raises ConfigError if more than a few of the times have a time zone with several meanings."""
    unknown = Counter(parts["z"] for parts in found if not is_known_zone(parts.get("z", "")))
    if unknown and unknown.total() > _STRAY_SHARE * len(found):
        zone = unknown.most_common(1)[0][0]
        raise ConfigError(
            f"{path}: column {column!r}: {why_unclear(zone)}; write offsets such as +02:00, or UTC, in its place"
        )


def _zones_note(times: str, found: Sequence[dict[str, str]]) -> str:
    zoned = sum(bool(parts.get("z") or parts.get("place")) for parts in found)
    if zoned == len(found):
        return f"{times} with their time zone"
    return f"{times}, UTC assumed" + (" where they name no time zone" if zoned else "")
