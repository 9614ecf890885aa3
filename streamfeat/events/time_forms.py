"""The forms in which dates and times are written as text: one pattern each, for Python and for DuckDB (RE2).

The parts of a form: `y`, `m` (a number, or an English name), `d`; `t` (hours, minutes and maybe seconds, with colons),
`f` (digits of the fraction of the second), `ap` (AM or PM), `z` (zone), `place` (a zone in brackets, as in Java);
`digits`, `millis` and `hhmm` (a time of day without colons; with milliseconds); `hour`, `minute` and `second`.
"""

import re

from streamfeat.events.time_zones import FIXED_OFFSETS, UTC_NAMES

# Also the spaces that do not break a line, which Windows and iOS write before AM and PM. Python and RE2 differ in what
# \s means beside ASCII, so it is replaced by this.
_SPACE = "[\\s\u00a0\u2009\u202f]"

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_REST = ("uary", "ruary", "ch", "il", "", "e", "y", "ust", "t(?:ember)?", "ober", "ember", "ember")
_NAMED = "|".join(f"{name}(?:{rest})?" for name, rest in zip(_MONTHS, _REST, strict=True))
_MONTH = rf"(\d{{1,2}}|(?i:{_NAMED}))"
_WEEKDAY = r"(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*[,.]?\s+)?"
_ORDINAL = r"(?:st|nd|rd|th)?"
_CLOCK = r"(\d{1,2}:\d{1,2}(?::\d{1,2}(?:[.,](\d+))?)?)\s*((?i:[ap]\.?m\.?))?"
_TIME = rf"(?:(?:T|,?\s+(?:at\s+)?|,|:){_CLOCK})?"
_OFFSET = r"[+-]\d{1,2}(?::?\d{2}(?::\d{2})?)?"
_ZONE = rf"\s*({_OFFSET}|[A-Za-z](?:[A-Za-z_/-]*[A-Za-z])?(?:[+-]\d{{1,2}}(?::?\d{{2}})?)?)?"
_PLACE = r"(?:\[([A-Za-z_/+-]+\d*)\])?"
_BETWEEN = r"(?:[-/.,]|\s)\s*"  # day, month and year

# The end of a date that was written as a moment. Where the time of day is in a column of its own, it says nothing.
MIDNIGHT = r"[T ]00:00:00(\.0+)?$"

# A number, which a time may be, too.
NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"

_REST_PARTS = ("t", "f", "ap", "z")

# Form → pattern of the whole value, and the parts that its groups are.
_FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "iso": (
        rf"\s*(\d{{4,6}})[-/.](\d{{1,2}})[-/.](\d{{1,2}}){_TIME}{_ZONE}{_PLACE}\s*",
        ("y", "m", "d", *_REST_PARTS, "place"),
    ),
    "yyyymmdd": (
        r"\s*(\d{4})(\d{2})(\d{2})"
        rf"(?:\.0*|T?(?:(\d{{2}}|\d{{4}}|\d{{6}})(?:[.,](\d+))?|(\d{{9}}))|\s+(\d{{1,6}}))?{_ZONE}\s*",
        ("y", "m", "d", "digits", "f", "millis", "hhmm", "z"),
    ),
    "dmy": (
        rf"\s*{_WEEKDAY}(\d{{1,2}}){_ORDINAL}{_BETWEEN}{_MONTH}{_BETWEEN}(\d{{4}}|\d{{2}}){_TIME}{_ZONE}\s*",
        ("d", "m", "y", *_REST_PARTS),
    ),
    "mdy": (
        rf"\s*{_WEEKDAY}{_MONTH}{_BETWEEN}(\d{{1,2}}){_ORDINAL}{_BETWEEN}(\d{{4}}|\d{{2}}){_TIME}{_ZONE}\s*",
        ("m", "d", "y", *_REST_PARTS),
    ),
    "ctime": (
        rf"\s*{_WEEKDAY}{_MONTH}\s+(\d{{1,2}})\s+{_CLOCK}{_ZONE}\s+(\d{{4}})\s*",
        ("m", "d", *_REST_PARTS, "y"),
    ),
    "parts": (
        r"\s*(\d{4})\s+(\d{1,2})\s+(\d{1,2})(?:\s+(\d{1,2})(?:\s+(\d{1,2})(?:\s+(\d{1,2})(?:\.(\d+))?)?)?)?\s*",
        ("y", "m", "d", "hour", "minute", "second", "f"),
    ),
}
FORMS = {form: (pattern.replace(r"\s", _SPACE), parts) for form, (pattern, parts) in _FORMS.items()}
_COMPILED = {form: re.compile(pattern, re.ASCII) for form, (pattern, _) in FORMS.items()}


def parts_of(form: str, value: str) -> dict[str, str] | None:
    """The parts of `value`, "" if left out; None if it is not of this form."""
    match = _COMPILED[form].fullmatch(value)
    return None if match is None else dict(zip(FORMS[form][1], match.groups(default=""), strict=True))


def month_sql(text: str) -> str:
    """SQL of a month as a number: `text` is one already, or an English name."""
    place = f"strpos('{' '.join(_MONTHS)}', lower(left({text}, 3)))"
    return f"CASE WHEN {text} < 'A' THEN {text} ELSE CAST({place} // 4 + 1 AS VARCHAR) END"


def is_known_zone(zone: str) -> bool:
    """Whether a zone has one meaning: an offset, UTC, a place such as Europe/Berlin, or one of few abbreviations."""
    name = re.sub(r"[+-]\d.*", "", zone).upper()
    return not name or name in UTC_NAMES or zone.upper() in FIXED_OFFSETS or "/" in zone


def zone_sql(zone: str) -> str:
    """SQL of what DuckDB's cast to TIMESTAMPTZ understands, to stand behind the time; NULL for an unknown zone."""
    offset = f"regexp_extract({zone}, '{_OFFSET}$')"
    # DuckDB needs two digits for the hours.
    padded = f"regexp_replace({offset}, '^([+-])(\\d)(:?\\d\\d)?$', '\\10\\2\\3')"
    names = "|".join(UTC_NAMES)
    fixed = " ".join(f"WHEN '{name}' THEN '{offset}'" for name, offset in FIXED_OFFSETS.items())
    return (
        f"CASE WHEN regexp_full_match({zone}, '(?i:{names})?') THEN '+00' "
        f"WHEN regexp_full_match({zone}, '(?i:{names})?{_OFFSET}') THEN {padded} "
        f"WHEN contains({zone}, '/') THEN ' ' || {zone} "
        f"ELSE CASE upper({zone}) {fixed} END END"
    )
