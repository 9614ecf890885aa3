"""SQL that casts the raw times of a file to whole Unix seconds and the nanoseconds after them."""

from streamfeat.events.source import TICKS_PER_SECOND

LAST_SECOND = 253_402_300_799  # the end of the year 9999
NANOSECONDS = 10**9  # of a second
_RAW = '"timestamp"'
_MAX_INT64 = 2**63 - 1
_FITS_INT64 = 9.2e18  # a double below this can be cast to BIGINT

# A whole number with or without decimals, and any other number.
_WHOLE = r"\s*\+?\d{1,18}(\.\d*)?\s*"
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"


def tried_times(kind: str, unit: str) -> list[str]:
    """Columns of a query below that of `time_columns`, which need them."""
    if unit not in TICKS_PER_SECOND:
        return [f"epoch_us({_instant(_RAW)}) AS timestamp_us"]
    return ['TRY_CAST("timestamp" AS BIGINT) AS timestamp_try'] if kind == "text" else []


def time_columns(kind: str, unit: str) -> list[str]:
    """SQL columns of the column "timestamp", whose values are of the `kind` of the casts and the unit `unit`.

    `seconds` is BIGINT, floored: -1 for negative times, more than LAST_SECOND for too large ones, NULL for what is no
    time. `fraction` is INTEGER, the nanoseconds after that second, rounded down; there is none if the values are whole
    seconds by their type. If `seconds` is no good time, `fraction` means nothing.
    """
    raw, ticks = _RAW, TICKS_PER_SECOND.get(unit)
    if ticks is None:
        seconds = "CASE WHEN timestamp_us < 0 THEN -1 ELSE timestamp_us // 1000000 END"
        return [f"{seconds} AS seconds", f"{_iso_fraction(raw)} AS fraction"]
    if kind == "text":
        return [f"{_text_seconds(raw, ticks)} AS seconds", f"{_text_fraction(raw, ticks)} AS fraction"]
    if kind == "floating":
        seconds, fraction = _of_double(raw, ticks)
        return [f"CASE WHEN isfinite({raw}) THEN {seconds} END AS seconds", f"{fraction} AS fraction"]
    whole = f"CAST({raw} AS BIGINT)" if kind == "integer" else f"CAST(least({raw}, {_MAX_INT64}) AS BIGINT)"
    seconds = f"{whole} // {ticks}"
    if kind == "integer":
        seconds = f"CASE WHEN {raw} < 0 THEN -1 ELSE {seconds} END"
    return [f"{seconds} AS seconds", *([f"{_rest(whole, ticks)} AS fraction"] if ticks > 1 else [])]


def _rest(whole: str, ticks: int) -> str:
    """Nanoseconds of whole ticks that are left over from whole seconds."""
    return f"CAST({whole} % {ticks} AS INTEGER) * {NANOSECONDS // ticks}" if ticks > 1 else "0"


def _of_double(value: str, ticks: int) -> tuple[str, str]:
    """Seconds and nanoseconds of a DOUBLE. Its whole ticks are divided as integers, so that nothing is rounded up."""
    fits = f"{value} < {_FITS_INT64}"
    whole = f"TRY_CAST(floor({value}) AS BIGINT)"
    far = f"CAST(least({value} / {ticks}, {LAST_SECOND + 1}) AS BIGINT)"
    nanoseconds = f"TRY_CAST(floor(({value} - floor({value})) * {NANOSECONDS // ticks}) AS INTEGER)"
    return (
        f"CASE WHEN {value} < 0 THEN -1 WHEN {fits} THEN {whole} // {ticks} ELSE {far} END",
        f"CASE WHEN {value} >= 0 AND {fits} THEN {_rest(whole, ticks)} + {nanoseconds} ELSE 0 END",
    )


def _text_seconds(raw: str, ticks: int) -> str:
    # Fast path for the canonical decimal of an integer; regular expressions decide about all others.
    return (
        f"CASE WHEN {_is_canonical(raw)} THEN timestamp_try // {ticks} "
        f"WHEN regexp_full_match({raw}, '{_WHOLE}') THEN CAST(split_part(trim({raw}), '.', 1) AS BIGINT) // {ticks} "
        f"WHEN regexp_full_match({raw}, '{_NUMBER}') "
        f"THEN {_of_double(f'TRY_CAST(trim({raw}) AS DOUBLE)', ticks)[0]} END"
    )


def _text_fraction(raw: str, ticks: int) -> str:
    whole = f"CAST(split_part(trim({raw}), '.', 1) AS BIGINT)"
    decimals = _digits(f"split_part(trim({raw}), '.', 2)") + f" // {ticks}"
    return (
        f"CASE WHEN {_is_canonical(raw)} THEN {_rest('timestamp_try', ticks)} "
        f"WHEN regexp_full_match({raw}, '{_WHOLE}') THEN {_rest(whole, ticks)} + {decimals} "
        f"WHEN regexp_full_match({raw}, '{_NUMBER}') "
        f"THEN {_of_double(f'TRY_CAST(trim({raw}) AS DOUBLE)', ticks)[1]} ELSE 0 END"
    )


def _is_canonical(raw: str) -> str:
    return f"timestamp_try >= 0 AND CAST(timestamp_try AS VARCHAR) = {raw}"


def _digits(text: str) -> str:
    """The digits after a decimal point as nanoseconds."""
    return f"CAST(rpad(left({text}, 9), 9, '0') AS INTEGER)"


def _iso_fraction(raw: str) -> str:
    # A TIMESTAMP of DuckDB has microseconds; further digits are taken from the text. A zone shifts whole seconds.
    longer = f"length(split_part({raw}, '.', 2)) > {len('123456Z')}"
    found = f"regexp_extract({raw}, ':\\d\\d\\.(\\d+)', 1)"
    micros = "CAST(timestamp_us % 1000000 AS INTEGER) * 1000"
    return f"CASE WHEN NOT contains({raw}, '.') THEN 0 WHEN {longer} THEN {_digits(found)} ELSE {micros} END"


def _instant(raw: str) -> str:
    """TIMESTAMPTZ of ISO text. The usual forms without another zone use TIMESTAMP, at a third of the cost."""
    plain = " OR ".join(f"{raw} LIKE '____-__-_____:__:__{rest}'" for rest in ("", "Z", ".___Z", ".______Z"))
    return (
        f"CASE WHEN {plain} THEN CAST(TRY_CAST({raw} AS TIMESTAMP) AS TIMESTAMPTZ) "
        f"ELSE coalesce(TRY_CAST({raw} AS TIMESTAMPTZ), TRY_CAST(trim({raw}) AS TIMESTAMPTZ)) END"
    )
