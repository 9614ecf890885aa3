"""Recognises how a file's times are written, from a sample. Raises an error if several readings are possible."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from streamfeat.config import TimeUnit
from streamfeat.errors import ConfigError
from streamfeat.events.column_values import NOBODY
from streamfeat.events.numeric_times import ANOTHER_COLUMN, STRAY_SHARE, check_times_of_nothing, unit_of_numbers
from streamfeat.events.source import SourceTimeUnit
from streamfeat.events.time_forms import MIDNIGHT, NUMBER, is_known_zone, parts_of
from streamfeat.events.time_zones import why_unclear

_NUMBER = re.compile(NUMBER)
# The first moment of 1970 in any time zone, which stands for 0.
_NOTHING = re.compile(
    r"(1970([-/.])0?1\2 ?0?1|0?1([-/.])0?1\3 ?1970)([T ,]+\d?\d:[03]0(:00([.,]0*)?)?( ?[AaPp]\.?[Mm]\.?)?)?"
    r"\s*(Z|UTC|GMT|[+-]\d\d(:?\d\d)?)?"
)


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
    texts = [value.strip() for value in values if value.strip() and value not in NOBODY]
    if asked == "auto":
        check_first_moments(path, column, texts)
    numbers = [value for value in texts if _NUMBER.fullmatch(value)]
    iso = [parts for value in texts if (parts := parts_of("iso", value)) is not None]
    if len(iso) > len(numbers):
        _check_zones(path, column, iso)
        return "iso", _zones_note("ISO times", iso)
    if 2 * len(numbers) >= len(texts):
        return unit_of_numbers(path, column, numbers, asked)
    return _of_texts(path, column, texts, asked)


def check_first_moments(path: str, column: str, texts: Sequence[str]) -> None:
    """Raises ConfigError if more than a tenth of the dates are the first moment of 1970, as 0 is when it is written as
    a date."""
    texts = [text for text in texts if text]
    first = [text for text in texts if _NOTHING.fullmatch(text)]
    if first:
        check_times_of_nothing(path, column, len(first), len(texts), first[0], "iso")


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
            f"2013-04-03T22:45:08Z nor a date in another known form; convert it, {ANOTHER_COLUMN}"
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
    allowed = [order for order in ("dmy", "mdy", "ymd") if fits[order] >= (1 - STRAY_SHARE) * num_dates]
    if allowed == ["dmy"]:
        return "dmy"
    if allowed == ["mdy"]:
        return "mdy"
    if not allowed or allowed == ["ymd"]:
        first = next(text for text in texts if parts_of("dmy", text) or parts_of("mdy", text))
        raise ConfigError(
            f"{path}: column {column!r} holds dates such as {first[:40]!r} in several orders or with the year first; "
            f"write them as 2020-12-31, {ANOTHER_COLUMN}"
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
    if unknown and unknown.total() > STRAY_SHARE * len(found):
        zone = unknown.most_common(1)[0][0]
        raise ConfigError(
            f"{path}: column {column!r}: {why_unclear(zone)}; write offsets such as +02:00, or UTC, in its place"
        )


def _zones_note(times: str, found: Sequence[dict[str, str]]) -> str:
    zoned = sum(bool(parts.get("z") or parts.get("place")) for parts in found)
    if zoned == len(found):
        return f"{times} with their time zone"
    return f"{times}, UTC assumed" + (" where they name no time zone" if zoned else "")
