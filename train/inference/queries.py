"""Histories that a model is asked about, and the arrays of a batch that they become.

They equal what the stream gives for the same history with the asked event as its last: with it, the most recent
`window_len` tokens, CLS counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.schema import PLANNED, Schema
from streamfeat.store.histories import Histories
from streamfeat.stream.featurize import TOKEN_ARRAYS

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class History:
    """The events of one user, oldest first, with the ids of a dataset."""

    item: NDArray[np.int64]  # (n,) dense ids
    time: NDArray[np.int64]  # (n,) seconds since time_origin, ascending
    rating: NDArray[np.float32]  # (n,) NaN where missing
    status: NDArray[np.uint8]  # (n,)
    completion: NDArray[np.float32]  # (n,) NaN where missing

    def __len__(self) -> int:
        return len(self.item)

    def is_seen(self) -> NDArray[np.bool_]:
        """(n,): whether an event counts as seen: a planned one does not."""
        seen: NDArray[np.bool_] = self.status != PLANNED
        return seen


def stored_histories(stored: Histories) -> list[History]:
    """What a `HistoryReader` read, user by user."""
    return [
        History(stored.item[part], stored.time[part], stored.rating[part], stored.status[part], stored.completion[part])
        for part in map(slice, stored.offsets[:-1].tolist(), stored.offsets[1:].tolist())
    ]


@dataclass(frozen=True)
class Query:
    """What a history is asked: what comes next, at which time."""

    history: History
    time: int | None  # seconds since time_origin; None: hidden
    medium: int = 0  # masked objective: the asked event's
    item: int | None = None  # masked objective: the asked event's, where it is in view; None: masked


@dataclass(frozen=True)
class BatchShape:
    """How many tokens a batch of queries has."""

    rows: int  # at most
    row_len: int  # tokens of a row, at most; at least window_len
    fixed: bool  # exactly as many, the rest PAD: a GPU compiles once; else a batch is one row without PAD


def query_batches(
    queries: Sequence[Query], schema: Schema, shape: BatchShape, *, causal: bool
) -> Iterator[tuple[Arrays, NDArray[np.int64]]]:
    """The queries in order, batch by batch: its arrays, and for each of its queries the flat token whose state answers.

    Each query is a segment of its own, so that what comes of one hangs on no other.
    """
    first = row = end = 0
    starts: list[tuple[int, int]] = []
    for number, query in enumerate(queries):
        length = _num_tokens(query, schema, causal)
        if end + length > shape.row_len:
            if row + 1 == shape.rows:
                yield _arrays(queries[first:number], starts, _size(shape, end), schema, causal)
                first, row, starts = number, -1, []
            row, end = row + 1, 0
        starts.append((row, end))
        end += length
    if starts:
        yield _arrays(queries[first:], starts, _size(shape, end), schema, causal)


def _size(shape: BatchShape, end: int) -> tuple[int, int]:
    return (shape.rows, shape.row_len) if shape.fixed else (1, end)


def _first_event(query: Query, schema: Schema) -> int:
    """The first event that is kept; -1 where the history fits, CLS included."""
    room = schema.window_len - 1  # the asked event takes one place, also where no token stands for it
    num_events = len(query.history)
    return -1 if num_events < room else num_events - room


def _num_tokens(query: Query, schema: Schema, causal: bool) -> int:
    return len(query.history) - _first_event(query, schema) + (not causal)


def _arrays(
    queries: Sequence[Query], starts: Sequence[tuple[int, int]], shape: tuple[int, int], schema: Schema, causal: bool
) -> tuple[Arrays, NDArray[np.int64]]:
    arrays: Arrays = {name: np.zeros(shape, dtype) for name, dtype in TOKEN_ARRAYS.items()}
    arrays["slot"] = np.zeros(shape[0], np.int64)
    for name in ("item", "user", "position", "medium", "status"):
        arrays[name][:] = getattr(schema, f"{name}_tokens").pad
    arrays["segment"][:] = -1
    for name in ("rating", "completion"):
        arrays[name][:] = np.nan
    asked = np.empty(len(queries), np.int64)
    for number, (query, (row, start)) in enumerate(zip(queries, starts, strict=True)):
        tokens = slice(start, start + _num_tokens(query, schema, causal))
        segment = number and starts[number - 1][0] == row and arrays["segment"][row, start - 1] + 1
        part = {name: array[row, tokens] for name, array in arrays.items() if array.ndim == 2}
        part["segment"][:] = segment
        _write(part, query, schema, causal)
        asked[number] = row * shape[1] + tokens.stop - 1
    for name in ("rating", "completion"):
        np.logical_not(np.isnan(arrays[name]), out=arrays[f"{name}_known"])
        arrays[name][~arrays[f"{name}_known"]] = 0
    return arrays, asked


def _write(part: Arrays, query: Query, schema: Schema, causal: bool) -> None:
    """Fill the tokens of one query."""
    history, first = query.history, _first_event(query, schema)
    if first < 0:
        for name in ("item", "position", "medium", "status"):
            part[name][0] = getattr(schema, f"{name}_tokens").cls
    events = slice(int(first < 0), int(first < 0) + len(history) - max(first, 0))
    for name in ("item", "time", "rating", "status", "completion"):
        part[name][events] = getattr(history, name)[max(first, 0) :]
    part["medium"][events] = np.searchsorted(schema.medium_offsets, part["item"][events], side="right") - 1
    part["position"][events] = np.arange(max(first, 0), len(history)) % schema.window_len
    part["time_known"][events] = True
    if causal:
        if query.time is not None:  # the told times of a segment are known or hidden together
            part["told_time"][:-1], part["told_time"][-1] = part["time"][1:], query.time
            part["told_time_known"][:] = True
        return
    part["item"][-1] = schema.item_tokens.mask if query.item is None else query.item
    part["medium"][-1] = query.medium
    part["status"][-1] = schema.status_tokens.mask
    part["position"][-1] = len(history) % schema.window_len
    part["time"][-1], part["time_known"][-1] = query.time or 0, query.time is not None
