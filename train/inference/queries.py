"""Turns histories into the arrays of a batch for a model.

The arrays equal those of the stream for the same history followed by the predicted event: the most recent `window_len`
tokens, CLS and the predicted event included.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.schema import EVENT_FIELDS, PLANNED, Schema
from streamfeat.store.histories import Histories
from streamfeat.stream.featurize import TOKEN_ARRAYS

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class History:
    """The events of one user, oldest first, with the ids of a dataset."""

    item: NDArray[np.int64]  # (n,) dense ids
    time: NDArray[np.int64]  # (n,) seconds since time_origin, ascending
    rating: NDArray[np.float32]  # (n,) NaN if missing
    status: NDArray[np.uint8]  # (n,)
    completion: NDArray[np.float32]  # (n,) NaN if missing
    user: int = -1  # dense id; -1: none of the dataset
    training_events: int = 0  # how many of the first events are training events of this user

    def __len__(self) -> int:
        return len(self.item)

    def first(self, num: int) -> "History":
        """The first `num` events."""
        columns = {name: getattr(self, name)[:num] for name in EVENT_FIELDS}
        return replace(self, **columns)

    def is_seen(self) -> NDArray[np.bool_]:
        """(n,): whether the item counts as seen. Items of planned events do not."""
        seen: NDArray[np.bool_] = self.status != PLANNED
        return seen


def stored_histories(
    stored: Histories, first_user: int = 0, training_events: NDArray[np.int64] | None = None
) -> list[History]:
    """The histories that a `HistoryReader` read, one for each user. `training_events` (users,) are those of `HeldOut`,
    of the users from `first_user` on; without them, the histories are those of strangers."""
    known = np.zeros(len(stored.offsets) - 1, np.int64) if training_events is None else training_events
    return [
        stored_history(stored, slice(start, stop), -1 if training_events is None else first_user + row, int(known[row]))
        for row, (start, stop) in enumerate(itertools.pairwise(stored.offsets.tolist()))
    ]


def stored_history(stored: Histories, events: slice, user: int, training_events: int) -> History:
    """The events `events` of `stored`, which are the first ones of `user`."""
    return History(
        stored.item[events],
        stored.time[events],
        stored.rating[events],
        stored.status[events],
        stored.completion[events],
        user,
        training_events,
    )


@dataclass(frozen=True)
class Query:
    """A history and the time of the event that is to be predicted after it."""

    history: History
    time: int | None  # seconds since time_origin; None: hidden
    medium: int = 0  # masked objective: the medium of the predicted event
    item: int | None = None  # masked objective: the item of the predicted event, if the model may see it


@dataclass(frozen=True)
class BatchShape:
    """The number of tokens in a batch of queries."""

    rows: int  # at most
    row_len: int  # most tokens in a row; at least window_len
    fixed: bool  # True: every batch has this shape, filled with PAD, so a GPU compiles once; False: one row without PAD


def query_batches(
    queries: Sequence[Query], schema: Schema, shape: BatchShape, *, causal: bool
) -> Iterator[tuple[Arrays, NDArray[np.int64]]]:
    """Yields the queries in order, in batches: the arrays, and for each query the flat token whose state predicts.

    Each query is a segment of its own, so queries do not influence each other.
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
    """The first event that fits into a window; -1 if all events and CLS fit."""
    room = schema.window_len - 1  # the predicted event takes one place, even if it has no token (causal)
    num_events = len(query.history)
    return -1 if num_events < room else num_events - room


def _num_tokens(query: Query, schema: Schema, causal: bool) -> int:
    return len(query.history) - _first_event(query, schema) + (not causal)


def _arrays(
    queries: Sequence[Query], starts: Sequence[tuple[int, int]], shape: tuple[int, int], schema: Schema, causal: bool
) -> tuple[Arrays, NDArray[np.int64]]:
    arrays: Arrays = {name: np.zeros(shape, dtype) for name, dtype in TOKEN_ARRAYS.items()}
    arrays["slot"] = np.zeros(shape[0], np.int64)
    arrays["in_table"] = np.zeros(shape, np.bool_)
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
    """Fills the tokens of one query."""
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
    part["in_table"][events] = np.arange(max(first, 0), len(history)) < history.training_events
    if history.user >= 0:
        part["user"][:] = history.user
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
