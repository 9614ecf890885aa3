"""Makes a batch of events of cast columns: looks up labels, takes out bad rows and names them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamfeat.config import check_medium_name
from streamfeat.events.casts import MAX_VALUE_LEN, REASONS
from streamfeat.events.column_values import DASHES, NOBODY
from streamfeat.events.statuses import status_of
from streamfeat.schema import COMPLETED, STATUSES


class Rejected(NamedTuple):
    """A row that is not an event."""

    row: int  # 1-based row (Parquet) or record (text: a line, or several of them) of its file
    reason: str
    value: str  # the bad value, shortened and passed through `no_formula`


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_PLAIN_NUMBER = re.compile(r"[+-]?[\d.]+([eE][+-]?\d+)?")


def no_formula(value: str) -> str:
    """`value` with an apostrophe in front if a spreadsheet would read it as a formula. Numbers stay as they are.

    Users may open the file of rejected rows in a spreadsheet.
    """
    return f"'{value}" if value.startswith(_FORMULA_STARTS) and not _PLAIN_NUMBER.fullmatch(value) else value


@dataclass(frozen=True)
class Ids:
    """Raw ids of n rows, exactly as in the file."""

    number: NDArray[np.int64]  # (n,); 0 if the id is text
    text: pa.StringArray | None  # (n,), null if the id is the canonical decimal of an int64; None: all are


@dataclass(frozen=True)
class EventBatch:
    """Consecutive rows of a file: the n events in input order, and the rejected rows."""

    user: Ids
    item: Ids
    medium: NDArray[np.int32]  # (n,) index into `media`
    media: tuple[str, ...]  # the media of this batch, sorted
    time: NDArray[np.int64]  # (n,) Unix seconds, floored
    fraction: NDArray[np.int32] | None  # (n,) nanoseconds after `time`; None if all are 0
    rating: NDArray[np.float32]  # (n,) NaN if missing
    status: NDArray[np.uint8]  # (n,) index into schema.STATUSES; completed if missing
    completion: NDArray[np.float32]  # (n,) 0 to 1; 1 if missing
    title: pa.StringArray | None  # (n,); None if the source has no such column
    num_rows: int  # rows read: n and the rejected ones
    rejected: list[Rejected]  # in row order
    undated: int = 0  # rows that have the time of another one, because they have none of their own


@dataclass(frozen=True)
class _Labels:
    """A text column of few distinct values, as codes."""

    names: Sequence[str]
    codes: NDArray[np.int32]  # (n,) index into `names`; -1 if the value is bad
    places: NDArray[np.int32]  # (n,) index into `reasons`
    reasons: list[str]  # for each distinct value: the reason why it is bad, or ""


def clean_batch(
    table: pa.Table,
    rows: NDArray[np.int64],
    dropped: list[Rejected],
    default_medium: str,
    statuses: Mapping[str, str],
    undated: int = 0,
) -> EventBatch:
    """The batch made from `table`, the result of `casts.cast_query`, whose rows have the numbers `rows` in their file.

    Its medium and status may be dictionaries. `dropped` are the rows, in order, that were taken out before the casts.
    `statuses` are those of the `Source`. `undated` of the rows have the time of another one.
    """
    assert len(table) == len(rows), f"of {len(rows)} rows {len(table)} were cast"
    labels = {role: _looked_up(table, role, statuses) for role in ("medium", "status") if role in table.column_names}
    keep = table["reason"].to_numpy() == 0
    for label in labels.values():
        keep &= label.codes >= 0
    rejected = dropped
    if not keep.all():
        rejected = sorted([*dropped, *_rejections(table, labels, np.flatnonzero(~keep), rows)])
        table = table.filter(pa.array(keep))
    media, medium = _compact(labels["medium"], keep) if "medium" in labels else ((default_medium,), None)
    status = labels["status"].codes[keep].astype(np.uint8) if "status" in labels else None
    num = len(table)
    return EventBatch(
        user=_ids(table, "user"),
        item=_ids(table, "item"),
        medium=np.zeros(num, np.int32) if medium is None else medium,
        media=media if num else (),
        time=table["time"].to_numpy(),
        fraction=_fractions(table),
        rating=_floats(table, "rating", np.nan),
        status=np.full(num, COMPLETED, np.uint8) if status is None else status,
        completion=_floats(table, "completion", 1),
        title=_string_array(table["title"]) if "title" in table.column_names else None,
        num_rows=len(rows) + len(dropped),
        rejected=rejected,
        undated=undated,
    )


def _medium_of(value: str | None) -> tuple[str, str]:
    """(name of the medium, ""), or ("", reason) if the value is not a medium."""
    if value is None or not value.strip() or value.strip() in NOBODY:
        return "", "empty_medium"
    try:
        return check_medium_name(value.strip()), ""
    except ValueError:
        return "", "bad_medium"


def _status_of(value: str | None, statuses: Mapping[str, str]) -> tuple[str, str]:
    """(name of the status, ""), or ("", reason) if the value is not a status."""
    name = STATUSES[COMPLETED] if value is None or not value.strip() else status_of(value, statuses)
    if not name and (value or "").strip() in (*NOBODY, *DASHES):
        name = STATUSES[COMPLETED]
    return (name, "") if name else ("", "unknown_status")


def _looked_up(table: pa.Table, role: str, statuses: Mapping[str, str]) -> _Labels:
    """The codes of a label column. Each distinct value is looked up once."""
    column = table[role].combine_chunks()
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    distinct = [*encoded.dictionary.to_pylist(), None]
    found = [_medium_of(value) if role == "medium" else _status_of(value, statuses) for value in distinct]
    names = STATUSES if role == "status" else tuple(sorted({name for name, reason in found if not reason}))
    code_of = {name: code for code, name in enumerate(names)}
    places = encoded.indices.fill_null(len(found) - 1).to_numpy()
    codes = np.array([code_of.get(name, -1) for name, _ in found], np.int32)[places]
    return _Labels(names, codes, places, [reason for _, reason in found])


def _compact(label: _Labels, keep: NDArray[np.bool_]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The names that occur in kept rows, and the kept rows' index into them."""
    codes = label.codes[keep]
    used = np.flatnonzero(np.bincount(codes, minlength=len(label.names)))
    place = np.zeros(len(label.names), np.int32)
    place[used] = np.arange(len(used))
    return tuple(label.names[code] for code in used.tolist()), place[codes]


def _rejections(
    table: pa.Table, labels: dict[str, _Labels], bad: NDArray[np.int64], rows: NDArray[np.int64]
) -> list[Rejected]:
    """The rows `bad` of `table`, each with its number, reason and value."""
    reasons = [REASONS[code] for code in table["reason"].to_numpy()[bad].tolist()]
    values = table["value"].take(pa.array(bad)).to_pylist()
    for role, label in labels.items():
        texts = table[role].take(pa.array(bad)).to_pylist()
        for i, reason in enumerate(label.reasons[place] for place in label.places[bad]):
            if reason and not reasons[i]:
                reasons[i], values[i] = reason, (texts[i] or "")[:MAX_VALUE_LEN]
    found = zip(rows[bad].tolist(), reasons, values, strict=True)
    return [Rejected(row, reason, no_formula(value or "")) for row, reason, value in found]


def _ids(table: pa.Table, role: str) -> Ids:
    number = table[f"{role}_number"].to_numpy()
    text = table[f"{role}_text"] if f"{role}_text" in table.column_names else None
    return Ids(number, None if text is None or text.null_count == len(text) else _string_array(text))


def _fractions(table: pa.Table) -> NDArray[np.int32] | None:
    values = table["fraction"].to_numpy() if "fraction" in table.column_names else None
    return values if values is not None and values.any() else None


def _floats(table: pa.Table, role: str, missing: float) -> NDArray[np.float32]:
    values = np.full(len(table), missing, np.float32)
    return table[role].to_numpy() if role in table.column_names else values


def _string_array(column: pa.ChunkedArray) -> pa.StringArray:
    return column.combine_chunks().cast(pa.string())
