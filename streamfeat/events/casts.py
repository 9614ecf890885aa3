"""The SQL query that casts raw columns, in one pass, and gives a reason code for each bad row.

DuckDB's casts accept more than one expects. Every guard here is against a case that was found: TRY_CAST('12.7' AS
BIGINT) is 13, '1_000' is 1000 and '0x1F' is 31; '1e400' is infinity as DOUBLE; CAST to TIMESTAMP ignores a time zone
without an error, only TIMESTAMPTZ uses it.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from streamfeat.events.column_values import NO_NUMBER
from streamfeat.events.source import CompletionUnit
from streamfeat.events.time_casts import LAST_SECOND, UNCLEAR_ZONE, time_steps
from streamfeat.events.time_forms import FORMS

Kind = Literal["text", "integer", "unsigned", "floating"]

# Reason codes of rows, in the order in which they are checked. 0 is a good row.
REASONS = (
    "",
    "missing_user",
    "missing_item",
    "missing_time",
    "unparsable_time",
    "unclear_time_zone",
    "negative_time",
    "time_out_of_range",
    "unparsable_rating",
    "non_finite_rating",
    "rating_too_large",
    "bad_completion",
)
_ROLE_OF_REASON = {
    "unparsable_time": "timestamp",
    "unclear_time_zone": "timestamp",
    "negative_time": "timestamp",
    "time_out_of_range": "timestamp",
    "unparsable_rating": "rating",
    "non_finite_rating": "rating",
    "rating_too_large": "rating",
    "bad_completion": "completion",
}

MAX_VALUE_LEN = 80  # longest reported text of a rejected value
MAX_RATING = 2**24  # beyond it float32 skips whole numbers, and a loss of squares loses all other ratings
_MAX_FLOAT32 = 3.4028234663852886e38
_MAX_INT64 = 2**63 - 1
_NO_NUMBERS = ", ".join(f"'{word}'" for word in NO_NUMBER)
_LONGEST = max(map(len, NO_NUMBER))


def cast_query(
    relation: str,
    kinds: Mapping[str, Kind],
    time_unit: str,
    completion_unit: CompletionUnit = "share",
    unrated: Sequence[float] = (),
) -> str:
    """SQL over `relation`, which has one column for each role of `kinds`. `time_unit` is that of its timestamps.
    Ratings of `unrated` are missing.

    Columns of the result: user_number, item_number (int64); user_text, item_text (if ids can be text; a row has a
    number or a text); time (int64, Unix seconds, floored); fraction (int32, the nanoseconds after that second; not if
    the times are whole seconds by their type); rating and completion if `kinds` has them (float32, NaN and
    1 if missing); reason (uint8, index into REASONS); value (text of the rejected value); medium, status and title as
    text if `kinds` has them. Rows with a reason may hold nulls, other rows only in text columns.
    """
    labels = [role for role in ("medium", "status", "title") if role in kinds]
    *steps, times = time_steps(kinds["timestamp"], time_unit)
    parsed = [
        *_id_columns("user", kinds["user"]),
        *_id_columns("item", kinds["item"]),
        '"timestamp"',
        *times,
        *(_rating_columns(kinds["rating"], unrated) if "rating" in kinds else []),
        *(_completion_columns(kinds, completion_unit) if "completion" in kinds else []),
        *labels,
    ]
    value = " ".join(
        f'WHEN {REASONS.index(reason)} THEN left(CAST("{role}" AS VARCHAR), {MAX_VALUE_LEN})'
        for reason, role in _ROLE_OF_REASON.items()
        if role in kinds
    )
    clean = [
        *_id_names("user", kinds["user"]),
        *_id_names("item", kinds["item"]),
        "seconds AS time",
        *(["fraction"] if len(times) == 2 else []),
        "CAST(reason AS UTINYINT) AS reason",
        f"CASE reason {value} END AS value",
        *(
            f"coalesce(TRY_CAST({role}_value AS FLOAT), {missing}) AS {role}"
            for role, missing in (("rating", "'nan'::FLOAT"), ("completion", "1::FLOAT"))
            if role in kinds
        ),
        *(f"CAST({label} AS VARCHAR) AS {label}" for label in labels if label != "title"),
        *(["nullif(CAST(title AS VARCHAR), '') AS title"] if "title" in labels else []),
    ]
    tried = [*_tried("user", kinds["user"]), *_tried("item", kinds["item"])]
    query = f"SELECT {', '.join(['*', *tried])} FROM ({relation})"
    for step in steps:
        query = f"SELECT *, {', '.join(step)} FROM ({query})"
    query = f"SELECT {', '.join(parsed)} FROM ({query})"
    query = f"SELECT *, {_reason(kinds, time_unit)} AS reason FROM ({query})"
    return f"SELECT {', '.join(clean)} FROM ({query})"


def _tried(role: str, kind: Kind) -> list[str]:
    # A failing TRY_CAST costs four times as much as a comparison, and most text ids are not numbers. Numbers sort
    # before ':'.
    return [f'CASE WHEN "{role}" < \':\' THEN TRY_CAST("{role}" AS BIGINT) END AS {role}_try'] if kind == "text" else []


def _id_columns(role: str, kind: Kind) -> list[str]:
    """An id as a number if that is exact, otherwise as text."""
    raw = f'"{role}"'
    missing = f"{raw} IS NULL"
    if kind == "integer":
        return [f"CAST({raw} AS BIGINT) AS {role}_number", f"({missing}) AS {role}_missing"]
    if kind == "unsigned":
        exact, number, text = f"{raw} <= {_MAX_INT64}", f"CAST({raw} AS BIGINT)", f"CAST({raw} AS VARCHAR)"
    else:
        exact, number, text = f"coalesce(CAST({role}_try AS VARCHAR) = {raw}, false)", f"{role}_try", raw
        missing += f" OR ({raw} < '!' AND trim({raw}) = '')"  # blanks sort before '!': most ids need no trimming
    return [
        f"CASE WHEN {exact} THEN {number} ELSE 0 END AS {role}_number",
        f"CASE WHEN NOT {exact} THEN {text} END AS {role}_text",
        f"({missing}) AS {role}_missing",
    ]


def _id_names(role: str, kind: Kind) -> list[str]:
    return [f"{role}_number"] if kind == "integer" else [f"{role}_number", f"{role}_text"]


def _number_columns(role: str, kind: Kind) -> list[str]:
    """The raw column and its value; NULL if missing or not a number."""
    raw = f'"{role}"'
    return [f"{_given(raw, kind)} AS {raw}", f"{_number(raw, kind)} AS {role}_value"]


def _given(raw: str, kind: Kind) -> str:
    """The raw column, NULL if missing."""
    none = {"text": "''", "floating": "'nan'"}.get(kind)
    return f"nullif({raw}, {none})" if none else raw


def _is_bad_number(role: str, kind: Kind) -> str:
    """Whether a given value is no number. The words for no number are looked for only where the cast has failed."""
    bad = f"{role} IS NOT NULL AND {role}_value IS NULL"
    if kind != "text":
        return bad
    return f"{bad} AND NOT (strlen({role}) <= {_LONGEST} AND lower(trim({role})) IN ({_NO_NUMBERS}))"


def _rating_columns(kind: Kind, unrated: Sequence[float]) -> list[str]:
    """As `_number_columns`; both are NULL for a rating of `unrated`."""
    if not unrated:
        return _number_columns("rating", kind)
    value = _number('"rating"', kind)
    given = _given('"rating"', kind)
    listed = ", ".join(f"'{level!r}'::FLOAT" for level in unrated)
    is_none = f"coalesce(TRY_CAST({value} AS FLOAT) IN ({listed}), false)"
    return [
        f'CASE WHEN NOT {is_none} THEN {given} END AS "rating"',
        f"CASE WHEN NOT {is_none} THEN {value} END AS rating_value",
    ]


def _number(raw: str, kind: Kind) -> str:
    if kind != "text":
        return f"nullif({raw}, 'nan')" if kind == "floating" else raw
    # DuckDB accepts an underscore as a digit separator, and words for NaN.
    return f"CASE WHEN NOT contains({raw}, '_') THEN nullif(TRY_CAST({raw} AS DOUBLE), 'nan') END"


def _completion_columns(kinds: Mapping[str, Kind], unit: CompletionUnit) -> list[str]:
    """The raw column and its value as a share. Without a known total a part of a total is missing; a part above its
    total is the whole."""
    kind = kinds["completion"]
    if unit == "share":
        return _number_columns("completion", kind)
    given = _given('"completion"', kind)
    if unit == "percent":
        stripped = "rtrim(\"completion\", '% ')" if kind == "text" else '"completion"'
        return [f'{given} AS "completion"', f"{_number(stripped, kind)} / 100 AS completion_value"]
    total = _number('"total"', kinds["total"])
    part = _number('"completion"', kind) + f" / CAST({total} AS DOUBLE)"
    return [
        f'CASE WHEN {total} > 0 THEN {given} END AS "completion"',
        f"CASE WHEN {part} > 1 THEN 1 ELSE {part} END AS completion_value",  # `least` would make 1 of NULL
    ]


def _reason(kinds: Mapping[str, Kind], time_unit: str) -> str:
    tests = {
        "missing_user": "user_missing",
        "missing_item": "item_missing",
        "missing_time": '"timestamp" IS NULL' + (" OR \"timestamp\" = ''" if kinds["timestamp"] == "text" else ""),
        "unparsable_time": "seconds IS NULL",
        **({"unclear_time_zone": f"seconds = {UNCLEAR_ZONE}"} if time_unit in FORMS else {}),
        "negative_time": "seconds < 0",
        "time_out_of_range": f"seconds > {LAST_SECOND}",
    }
    if "rating" in kinds:
        tests["unparsable_rating"] = _is_bad_number("rating", kinds["rating"])
        # In DuckDB NaN is larger than every number.
        tests["non_finite_rating"] = f"abs(rating_value) > {_MAX_FLOAT32}"
        tests["rating_too_large"] = f"abs(rating_value) > {MAX_RATING}"
    if "completion" in kinds:
        bad = f"({_is_bad_number('completion', kinds['completion'])})"
        tests["bad_completion"] = f"{bad} OR (completion IS NOT NULL AND NOT completion_value BETWEEN 0 AND 1)"
    return "CASE " + " ".join(f"WHEN {test} THEN {REASONS.index(name)}" for name, test in tests.items()) + " ELSE 0 END"
