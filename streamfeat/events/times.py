"""Recognises the unit of a file's timestamps from a sample. Raises an error if it is ambiguous."""

import re
from collections import Counter
from collections.abc import Iterable

from streamfeat.config import TimeUnit
from streamfeat.errors import ConfigError
from streamfeat.events.source import SourceTimeUnit

# Upper bounds of magnitude: 10^11 s is the year 5138, 10^11 ms is 1973, and so on.
_MAGNITUDES: tuple[tuple[float, SourceTimeUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (float("inf"), "ns"))
# Smaller values (1973 in seconds) fit every unit. They are ignored if there are larger ones.
_NO_EVIDENCE = 1e8
_STRAY_SHARE = 0.01  # up to this share, values of another unit are bad rows; with more, the file is ambiguous

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_ISO = re.compile(r"\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T].*)?", re.DOTALL)
_ISO_ZONE = re.compile(r"\d{1,2}:\d{2}.*([Zz]|[+-]\d{2}(:?\d{2})?|\s[A-Za-z/_]+)\s*", re.DOTALL)

_LONG_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def recognise_times(path: str, column: str, values: Iterable[str], asked: TimeUnit) -> tuple[SourceTimeUnit, str]:
    """Unit, and a phrase about it for the user, from sampled timestamps as text. `asked` fixes the unit of numbers.

    Without any value the unit is seconds. Raises ConfigError for text that is neither a number nor ISO, and for
    magnitudes of several units.
    """
    numbers, iso, other = [], [], []
    for value in values:
        if _NUMBER.fullmatch(value):
            numbers.append(float(value))
        elif _ISO.fullmatch(value):
            iso.append(value)
        elif value.strip():
            other.append(value)
    if len(other) > max(len(numbers), len(iso)):
        raise ConfigError(
            f"{path}: column {column!r} holds {other[0][:40]!r}, which is neither a number nor an ISO time such as "
            "2013-04-03T22:45:08Z; convert it, or name another column with --columns timestamp=NAME"
        )
    if len(iso) > len(numbers):
        zoned = sum(bool(_ISO_ZONE.search(_time_part(value))) for value in iso)
        if zoned == len(iso):
            return "iso", "ISO times with their time zone"
        return "iso", "ISO times, UTC assumed" + (" where they name no time zone" if zoned else "")
    unit = _unit_of_numbers(path, column, numbers) if asked == "auto" else asked
    return unit, f"times in {_LONG_NAMES[unit]} ({'recognised' if asked == 'auto' else 'as asked'})"


def _time_part(value: str) -> str:
    return re.split(r"[ T]", value.strip(), maxsplit=1)[-1]


def _unit_of_numbers(path: str, column: str, numbers: list[float]) -> SourceTimeUnit:
    evidence = [n for n in numbers if n >= _NO_EVIDENCE]
    units = Counter(next(unit for bound, unit in _MAGNITUDES if n < bound) for n in evidence if n < float("inf"))
    if not units:
        return "s"
    unit, count = units.most_common(1)[0]
    if count < (1 - _STRAY_SHARE) * len(evidence):
        found = ", ".join(f"{n} of {len(evidence)} look like {_LONG_NAMES[u]}" for u, n in units.most_common())
        raise ConfigError(
            f"{path}: column {column!r} mixes magnitudes: {found}; give the right unit with --time-unit s|ms|us|ns, "
            "or split the file"
        )
    return unit
