"""SQL that casts the raw times of a file to whole Unix seconds and the nanoseconds after them."""

from collections.abc import Mapping, Sequence

from streamfeat.events.time_forms import FORMS, MIDNIGHT, NUMBER, month_sql, zone_sql
from streamfeat.events.time_units import TIME_UNITS

LAST_SECOND = 253_402_300_799  # the end of the year 9999
NANOSECONDS = 10**9  # of a second
_RAW = '"timestamp"'
_MAX_INT64 = 2**63 - 1
_FAR = 10**12  # more seconds than to LAST_SECOND from the start of any unit
_FITS_INT64 = 9.2e18  # a double below this can be cast to BIGINT

UNCLEAR_ZONE = -2  # in place of seconds

# A whole number with or without decimals.
_WHOLE = r"\s*\+?\d{1,18}(\.\d*)?\s*"

# Days of 86,400 s before 1970 in the units that count days.
_DAYS_BEFORE_1970 = {"days": 0, "excel-days": 25_569}


def joined_sql(first: str, others: Sequence[str]) -> str:
    """SQL of the text of a time whose date and time of day are in several columns; NULL without the first."""
    date = f"regexp_replace({first}, '{MIDNIGHT}', '')"
    return f"CASE WHEN {first} IS NOT NULL THEN concat_ws(' ', {', '.join([date, *others])}) END"


def time_steps(kind: str, unit: str) -> list[list[str]]:
    """SQL columns for the column "timestamp", whose values are of the `kind` of the casts and the unit `unit`: one list
    for each of the queries, one around the other.

    In the end `seconds` is BIGINT, floored: -1 for negative times, UNCLEAR_ZONE for a time zone with several meanings,
    more than LAST_SECOND for too large ones, NULL for what is no time. `fraction` is INTEGER, the nanoseconds after
    that second, rounded down; there is none if the values are whole seconds by their type. If `seconds` is no good
    time, `fraction` means nothing.
    """
    if unit in FORMS:
        return _of_form(kind, unit)
    if unit in _DAYS_BEFORE_1970:
        return _of_days(kind, _DAYS_BEFORE_1970[unit])
    facts = TIME_UNITS[unit]
    steps = _since_start(kind, facts.ticks)
    if not facts.start:
        return steps
    *first, (seconds, *fraction) = steps
    unix = f"timestamp_since + {facts.start}"
    return [
        *first,
        [seconds.replace(" AS seconds", " AS timestamp_since"), *fraction],
        [f"CASE WHEN timestamp_since < 0 OR {unix} < 0 THEN -1 ELSE {unix} END AS seconds"],
    ]


def _since_start(kind: str, ticks: int) -> list[list[str]]:
    """As `time_steps`, for numbers of `ticks` to the second; `seconds` counts from where the numbers do."""
    if kind == "text":
        tried = f"TRY_CAST({_RAW} AS BIGINT) AS timestamp_try"
        # A column of its own, because DuckDB would compare twice, for the seconds and for the fraction.
        whole = f"timestamp_try >= 0 AND CAST(timestamp_try AS VARCHAR) = {_RAW} AS timestamp_is_whole"
        parsed = [f"{_text_seconds(_RAW, ticks)} AS seconds", f"{_text_fraction(_RAW, ticks)} AS fraction"]
        return [[tried], [whole], parsed]
    if kind == "floating":
        seconds, fraction = _of_double(_RAW, ticks)
        return [[f"CASE WHEN isfinite({_RAW}) THEN {seconds} END AS seconds", f"{fraction} AS fraction"]]
    whole = f"CAST({_RAW} AS BIGINT)" if kind == "integer" else f"CAST(least({_RAW}, {_MAX_INT64}) AS BIGINT)"
    seconds = f"{whole} // {ticks}"
    if kind == "integer":
        seconds = f"CASE WHEN {_RAW} < 0 THEN -1 ELSE {seconds} END"
    return [[f"{seconds} AS seconds", *([f"{_rest(whole, ticks)} AS fraction"] if ticks > 1 else [])]]


def _rest(whole: str, ticks: int) -> str:
    """Nanoseconds of whole ticks that are left over from whole seconds."""
    return f"CAST({whole} % {ticks} AS INTEGER) * {NANOSECONDS // ticks}" if ticks > 1 else "0"


def _of_double(value: str, ticks: int) -> tuple[str, str]:
    """Seconds and nanoseconds of a DOUBLE. Its whole ticks are divided as integers, so that nothing is rounded up."""
    fits = f"{value} < {_FITS_INT64}"
    whole = f"TRY_CAST(floor({value}) AS BIGINT)"
    far = f"CAST(least({value} / {ticks}, {_FAR}) AS BIGINT)"
    nanoseconds = f"TRY_CAST(floor(({value} - floor({value})) * {NANOSECONDS // ticks}) AS INTEGER)"
    return (
        f"CASE WHEN {value} < 0 THEN -1 WHEN {fits} THEN {whole} // {ticks} ELSE {far} END",
        f"CASE WHEN {value} >= 0 AND {fits} THEN {_rest(whole, ticks)} + {nanoseconds} ELSE 0 END",
    )


def _text_seconds(raw: str, ticks: int) -> str:
    # Fast path for the canonical decimal of an integer; regular expressions decide about all others.
    return (
        f"CASE WHEN timestamp_is_whole THEN timestamp_try // {ticks} "
        f"WHEN regexp_full_match({raw}, '{_WHOLE}') THEN CAST(split_part(trim({raw}), '.', 1) AS BIGINT) // {ticks} "
        f"WHEN regexp_full_match({raw}, '{NUMBER}') "
        f"THEN {_of_double(f'TRY_CAST(trim({raw}) AS DOUBLE)', ticks)[0]} END"
    )


def _text_fraction(raw: str, ticks: int) -> str:
    whole = f"CAST(split_part(trim({raw}), '.', 1) AS BIGINT)"
    decimals = _digits(f"split_part(trim({raw}), '.', 2)") + f" // {ticks}"
    return (
        f"CASE WHEN timestamp_is_whole THEN {_rest('timestamp_try', ticks)} "
        f"WHEN regexp_full_match({raw}, '{_WHOLE}') THEN {_rest(whole, ticks)} + {decimals} "
        f"WHEN regexp_full_match({raw}, '{NUMBER}') "
        f"THEN {_of_double(f'TRY_CAST(trim({raw}) AS DOUBLE)', ticks)[1]} ELSE 0 END"
    )


def _digits(text: str) -> str:
    """The digits after a decimal point as nanoseconds."""
    return f"CAST(rpad(left({text}, 9), 9, '0') AS INTEGER)"


def _of_days(kind: str, before_1970: int) -> list[list[str]]:
    """Days as numbers, maybe with decimals. These seldom give whole seconds exactly, so half a millisecond is added to
    all that are not whole."""
    value = f"TRY_CAST(trim({_RAW}) AS DOUBLE)" if kind == "text" else f"CAST({_RAW} AS DOUBLE)"
    if kind == "text":
        value = f"CASE WHEN regexp_full_match({_RAW}, '{NUMBER}') THEN {value} END"
    days = f"{value} AS timestamp_days"
    whole = "floor(timestamp_days)"
    later = f"CASE WHEN timestamp_days = {whole} THEN 0 ELSE (timestamp_days - {whole}) * 86400 + 0.0005 END AS later"
    first = f"(least({whole}, 1e9) - {before_1970}) * 86400"
    seconds = f"CASE WHEN timestamp_days < {before_1970} THEN -1 ELSE CAST({first} + floor(later) AS BIGINT) END"
    return [
        [days],
        [later],
        [
            f"CASE WHEN isfinite(timestamp_days) THEN {seconds} END AS seconds",
            f"TRY_CAST(floor((later - floor(later)) * {NANOSECONDS}) AS INTEGER) AS fraction",
        ],
    ]


def _of_form(kind: str, form: str) -> list[list[str]]:
    """Text of a form of `FORMS`."""
    text = _RAW if kind == "text" else f"CAST({_RAW} AS VARCHAR)"
    pattern, parts = FORMS[form]
    names = ", ".join(f"'{part}'" for part in parts)
    part = {name: f"timestamp_parts['{name}']" for name in parts}
    split = f"regexp_extract({text}, '^{pattern}$', [{names}])"
    usual = form == "iso" and kind == "text"
    plain, plain_fraction = _of_usual_iso() if usual else ("NULL::BIGINT", "0")
    zone = f"coalesce(nullif({part['z']}, ''), {part['place']})" if "place" in part else part.get("z", "''")
    instant = f"{_date(part)} || ' ' || {_clock(part)} || timestamp_zone"
    if "millis" in part:
        part["f"] = f"CASE WHEN {part['millis']} <> '' THEN substr({part['millis']}, 7) ELSE {part['f']} END"
    split_fraction = f"CASE WHEN {part['f']} = '' THEN 0 ELSE {_digits(part['f'])} END"
    return [
        [f"{plain} AS timestamp_plain"],
        [f"CASE WHEN timestamp_plain IS NULL THEN {split} END AS timestamp_parts"],
        [f"{zone_sql(zone)} AS timestamp_zone"],
        [f"epoch_us(TRY_CAST({instant} AS TIMESTAMPTZ)) + {_half_day(part)} AS timestamp_split"],
        [
            f"CASE WHEN timestamp_plain < 0 OR timestamp_split < 0 THEN -1 "
            f"WHEN timestamp_zone IS NULL AND {part['y']} <> '' THEN {UNCLEAR_ZONE} "
            "ELSE coalesce(timestamp_plain, timestamp_split) // 1000000 END AS seconds",
            f"CASE WHEN timestamp_plain IS NULL THEN {split_fraction} ELSE {plain_fraction} END AS fraction",
        ],
    ]


def _of_usual_iso() -> tuple[str, str]:
    """Microseconds since 1970 and nanoseconds of the usual ISO forms, in UTC; NULL for others. They need no regular
    expression that takes them apart, which costs three times as much."""
    usual = " OR ".join(f"{_RAW} LIKE '____-__-_____:__:__{rest}'" for rest in ("", "Z"))
    usual += f" OR regexp_full_match({_RAW}, '....-..-.....:..:..\\.\\d+Z?')"
    # A TIMESTAMP of DuckDB has microseconds; further digits are taken from the text.
    micros = "CAST(timestamp_plain % 1000000 AS INTEGER) * 1000"
    longer = f"length({_RAW}) > {len('2013-04-03T22:45:08.123456')}"
    decimals = f"rtrim(substr({_RAW}, {len('2013-04-03T22:45:08.') + 1}), 'Z')"
    return (
        f"CASE WHEN {usual} THEN epoch_us(TRY_CAST({_RAW} AS TIMESTAMP)) END",
        f"CASE WHEN {longer} THEN {_digits(decimals)} ELSE {micros} END",
    )


def _date(part: Mapping[str, str]) -> str:
    year = part["y"]
    if "ap" in part:  # a year may have two digits, which mean what they mean to strptime
        year = (
            f"CASE WHEN length({year}) = 2 THEN CASE WHEN {year} < '69' THEN '20' ELSE '19' END ELSE '' END || {year}"
        )
    return f"({year}) || '-' || ({month_sql(part['m'])}) || '-' || {part['d']}"


def _clock(part: Mapping[str, str]) -> str:
    """Hours, minutes and seconds with colons; no fraction."""
    if "t" in part:
        return f"CASE WHEN {part['t']} = '' THEN '00:00' ELSE split_part(replace({part['t']}, ',', '.'), '.', 1) END"
    if "hour" in part:
        return " || ':' || ".join(f"lpad({part[name]}, 2, '0')" for name in ("hour", "minute", "second"))
    # A column of numbers loses leading zeros: 800 is 8:00, 80000 is 8:00:00.
    alone = (
        f"CASE WHEN length({part['hhmm']}) > 4 THEN lpad({part['hhmm']}, 6, '0') ELSE lpad({part['hhmm']}, 4, '0') END"
    )
    digits = (
        f"rpad(CASE WHEN {part['digits']} <> '' THEN {part['digits']} WHEN {part['millis']} <> '' "
        f"THEN left({part['millis']}, 6) ELSE {alone} END, 6, '0')"
    )
    return f"regexp_replace({digits}, '(..)(..)(..)', '\\1:\\2:\\3')"


def _half_day(part: Mapping[str, str]) -> str:
    """Microseconds to add for AM and PM; NULL if the hour does not go with them."""
    if "ap" not in part:
        return "0"
    hour = f"CAST(nullif(split_part({part['t']}, ':', 1), '') AS INTEGER)"
    first = f"lower(left({part['ap']}, 1))"
    return (
        f"CASE WHEN {first} = '' THEN 0 WHEN {hour} NOT BETWEEN 1 AND 12 THEN NULL "
        f"WHEN {first} = 'p' AND {hour} < 12 THEN 43200000000 WHEN {first} = 'a' AND {hour} = 12 THEN -43200000000 "
        "ELSE 0 END"
    )
