"""What the sampled values of a column can be: ids, times, ratings and so on. The rules are in docs/reading.md."""

import re
from collections.abc import Callable, Sequence
from datetime import date
from functools import cached_property
from itertools import pairwise

from streamfeat.events.time_units import TIME_UNITS, by_magnitude

# Words with which the usual tools write that there is no value: R, SQL, Python, MySQL, pandas, spreadsheets.
NOBODY = ("NA", "N/A", "#N/A", "NULL", "null", "None", "\\N", "nan", "NaN", "<NA>", "NaT")
DASHES = ("-", "--", "–", "—")  # for a missing number or status
# What stands for a missing number, in lower case: a rating, a completion.
NO_NUMBER = (
    "", *dict.fromkeys(map(str.lower, NOBODY)), *DASHES, ".", "?", "n.a.", "nr", "unrated", "not rated", "not_rated",
    "no rating", "no score",
)  # fmt: skip

_MOST = 0.5  # a column can play a role if at least this share of its values fits
_NEARLY_ALL = 0.9
_SURE_EPOCH = 1e8  # 1973 in seconds; smaller numbers are times only by name
_LAST_EPOCH = 1e19
_DAY = 86_400
_GAPS = 0.1  # a column of which a larger share is missing comes behind one that is filled
_MAX_LABELS = 64  # distinct values of a medium
_FEW = 10  # values that are no numbers may be bad rows of a rating
_MAX_RUN = 10  # so many rows numbered one by one are no ids by chance
_FEWEST_USERS = 5  # fewer values are no names of users but, for instance, yes and no

_NUMBER = re.compile(r"\s*[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?\s*")
_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_DATE = re.compile(
    r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|\d{1,2} \d{1,2}, \d{4}"
    rf"|\[?\d{{1,2}}[ /-]?{_MONTH}[ ,/:-]+\d{{2,4}}|{_MONTH}\.? \d{{1,2}},? \d{{4}}"
    rf"|(mon|tue|wed|thu|fri|sat|sun)[a-z]*,? ({_MONTH} \d{{1,2}}|\d{{1,2}} {_MONTH}) .*\d{{4}})([ T,:].*)?\s*",
    re.DOTALL | re.IGNORECASE,
)
_CLOCK = re.compile(r"\s*\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp]\.?[Mm]\.?)?\s*")
_COMPACT_DATE = re.compile(r"\s*(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\s*")
_ISO_DAY = re.compile(r"\s*(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_WITH_CLOCK = re.compile(r"\d{1,2}:\d{2}")
_BELOW_SECONDS = re.compile(r":\d{2}[.,]\d*[1-9]")
_FLOAT_WITHOUT_FRACTION = re.compile(r"-?\d+\.0+")
_ROUNDED = re.compile(r"-?(\d(\.\d+)?[eE]\+\d+|\d{16,}\.0*)")  # 7.65612E+16, 76561198000000000.0


def number_of(value: str) -> float | None:
    """The number that `value` writes, also with a decimal comma; None if it is none."""
    return float(value.replace(",", ".")) if _NUMBER.fullmatch(value) else None


def is_time(value: str) -> bool:
    """Whether `value` alone says that it is a time: a date, or a number of seconds to nanoseconds since 1970 after
    1973."""
    number = number_of(value)
    if number is not None:
        return _SURE_EPOCH <= number < _LAST_EPOCH or bool(_COMPACT_DATE.fullmatch(value))
    return bool(_DATE.fullmatch(value))


def is_clock(value: str) -> bool:
    """Whether `value` is a time of day without a date."""
    return bool(_CLOCK.fullmatch(value))


def share(values: Sequence[str], test: Callable[[str], object]) -> float:
    """The share of `values` that pass `test`; 1 of none."""
    return sum(bool(test(value)) for value in values) / len(values) if values else 1.0


class ColumnValues:
    """The sampled values of one column as text, in the order of the sampled rows. Missing ones are empty."""

    def __init__(self, rows: Sequence[str]) -> None:
        self.rows = rows

    @cached_property
    def given(self) -> list[str]:
        """The values that are not missing."""
        return [value for value in self.rows if value.strip() and value not in NOBODY]

    @cached_property
    def numbers(self) -> list[float]:
        """The values that are numbers."""
        return [number for number in map(number_of, self.given) if number is not None]

    @cached_property
    def is_numeric(self) -> bool:
        """Whether most values are numbers."""
        return bool(self.given) and len(self.numbers) >= _MOST * len(self.given)

    @cached_property
    def missing_share(self) -> float:
        """The share of missing values; 0 of so few rows that chance decides."""
        return 1 - len(self.given) / len(self.rows) if len(self.rows) >= _FEW else 0

    @property
    def has_gaps(self) -> bool:
        """Whether so many values are missing that another column would be better."""
        return self.missing_share > _GAPS

    @cached_property
    def surely_times(self) -> bool:
        """Whether nearly all values say that they are times."""
        return bool(self.given) and share(self.given, is_time) >= _NEARLY_ALL

    @property
    def is_amount(self) -> bool:
        """Whether most values are numbers, and no times."""
        return self.is_numeric and not self.surely_times

    @cached_property
    def counts_rows(self) -> bool:
        """Whether the column numbers the rows one by one, and no number comes twice."""
        first = self.numbers[:_MAX_RUN]
        run = len(first) == _MAX_RUN and all(b == a + 1 for a, b in pairwise(first))
        return run and len(set(self.numbers)) == len(self.given)

    @cached_property
    def differs_in_rows(self) -> bool:
        """Whether the values are numbers of which none comes twice."""
        return len(self.numbers) >= _MAX_RUN and len(set(self.rows)) == len(self.rows) == len(self.numbers)

    @cached_property
    def names_few(self) -> bool:
        """Whether there are at least five different values, each of them twice on average."""
        return _FEWEST_USERS <= len(set(self.given)) <= len(self.given) / 2

    @cached_property
    def are_floats(self) -> bool:
        """Whether all values are written as floats without a fraction, as 12.0 is."""
        return bool(self.given) and all(map(_FLOAT_WITHOUT_FRACTION.fullmatch, self.given))

    @cached_property
    def lost_digits(self) -> str:
        """A value that shows that most ids were written as rounded floats, as 7.65612E+16; otherwise empty."""
        lost = [value for value in self.given if _ROUNDED.fullmatch(value) and abs(float(value)) >= 2**53]
        return lost[0] if lost and len(lost) >= _MOST * len(self.given) else ""

    def fits(self, role: str) -> bool:
        """Whether the column can play the role. A column without rows can play every role."""
        return not self.rows or role not in _FITS or _FITS[role](self)

    def finer_than(self, other: "ColumnValues") -> bool:
        """Whether these times tell more moments apart: parts of seconds before seconds before days."""
        return self._fineness > other._fineness

    @cached_property
    def are_dates(self) -> bool:
        """Whether nearly all values are dates without a time of day."""
        return self.surely_times and not self.numbers and self._fineness == 0

    def same_days(self, other: "ColumnValues") -> bool:
        """Whether, in nearly all rows in which both columns hold a day, it is the same or the next one."""
        days = [(_day(a), _day(b)) for a, b in zip(self.rows, other.rows, strict=False)]
        near = [abs(a - b) <= 1 for a, b in days if a is not None and b is not None]
        return bool(near) and sum(near) >= _NEARLY_ALL * len(near)

    def follows(self, other: "ColumnValues") -> bool:
        """Whether nearly all rows with one value of `other` have one value here."""
        found: dict[str, str] = {}
        same = [found.setdefault(key, value) == value for key, value in zip(other.rows, self.rows, strict=False)]
        return sum(same) >= _NEARLY_ALL * len(same)

    @cached_property
    def _fineness(self) -> int:
        return max((_fineness(value) for value in self.given), default=0)

    def _is_id(self) -> bool:
        fractions = sum(number % 1 != 0 for number in self.numbers)
        dates = sum(number_of(value) is None and is_time(value) for value in self.given)
        return bool(self.given) and fractions + dates < _MOST * len(self.given)

    def _is_timestamp(self) -> bool:
        return bool(self.given) and share(self.given, lambda v: _NUMBER.fullmatch(v) or is_time(v)) >= _MOST

    def _is_rating(self) -> bool:
        given = [value for value in self.given if value.strip().lower() not in NO_NUMBER]
        return len(given) < _FEW or (len(self.numbers) >= _MOST * len(given) and not self.surely_times)

    def _is_label(self) -> bool:
        return len(set(self.given)) <= _MAX_LABELS

    def _is_title(self) -> bool:
        return not self.is_numeric and not self.surely_times


# Whether a column is read as status or completion is decided in watch_columns.py.
_FITS: dict[str, Callable[[ColumnValues], bool]] = {
    "user": ColumnValues._is_id,
    "item": ColumnValues._is_id,
    "timestamp": ColumnValues._is_timestamp,
    "medium": ColumnValues._is_label,
    "rating": ColumnValues._is_rating,
    "title": ColumnValues._is_title,
}


def _fineness(value: str) -> int:
    """0: a day; 1: a moment of a day; 2: finer than seconds."""
    number = number_of(value)
    if number is None:
        return 2 if _BELOW_SECONDS.search(value) else int(bool(_WITH_CLOCK.search(value)))
    if number < _SURE_EPOCH or number >= _LAST_EPOCH:
        return 0
    seconds = _seconds(number)
    return 2 if seconds % 1 else int(seconds % _DAY != 0)


def _seconds(number: float) -> float:
    """Seconds of a number of seconds, milliseconds, microseconds or nanoseconds since 1970, by its size."""
    return number / TIME_UNITS[by_magnitude(number)].ticks


def _day(value: str) -> int | None:
    """Days since 1970; None where the value does not say its day in an order that is sure."""
    number = number_of(value)
    if number is not None and _SURE_EPOCH <= number < _LAST_EPOCH:
        return int(_seconds(number) // _DAY)
    if number is not None and _COMPACT_DATE.fullmatch(value):
        parts = (int(value.strip()[:4]), int(value.strip()[4:6]), int(value.strip()[6:]))
    elif match := _ISO_DAY.match(value):
        parts = (int(match[1]), int(match[2]), int(match[3]))
    else:
        return None
    try:
        return date(*parts).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return None
