"""Which items follow each other in the training histories: at scoring, they shift the logits of the model.

T[i, j] sums 1 / lag over all pairs of events of a user in which j follows i by at most 10 events. Counts of both
directions ranked worse where items come and go, and level elsewhere (docs/quality.md). Of each item, the 64 heaviest
neighbours are kept. The term is ln(1 + s / (c · share)): with s + c · share the smoothed
mean over the last items of a history of P(j | i), and `share` the item's share of all training events.

Axes: V items, N histories, P places of a history's last items, V_m items of a medium.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.neighbours import EventIndex, Neighbours, heaviest_neighbours, log_lift, place_items
from train.terms.watched import Batches, Watched

LAST_ITEMS = 24  # so many of a history count

_WINDOW = 10  # events
_KEPT = 64  # neighbours of an item
_SMOOTHING = 20.0  # popularity counts like so many events
_HALF_LIFE = 3.0  # events, of a place's weight
_MOST_EVENTS = 2**27  # in memory, 9 bytes each
_ROWS = 2**16  # items at a time

_WEIGHT_P = np.exp2(-np.arange(LAST_ITEMS) / _HALF_LIFE)


@dataclass(frozen=True)
class Transitions:
    """The heaviest neighbours of each item."""

    neighbours: Neighbours

    def log_lift(self, last_NP: NDArray[np.int32], low: int, high: int) -> NDArray[np.float32]:
        """(N, V_m): the term of the items low … high - 1. `last_NP` are the last items of each history, the most recent
        one first, then -1; at most 24 of them count."""
        out = np.zeros((len(last_NP), high - low), np.float32)
        share_V = self.neighbours.num_V / max(1, int(self.neighbours.num_V.sum()))
        last = np.ascontiguousarray(last_NP[:, :LAST_ITEMS], np.int32)
        log_lift(self.neighbours, share_V, last, _WEIGHT_P, _SMOOTHING, low, out)
        return out

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for a file."""
        return dict(self.neighbours._asdict())


def count_transitions(batches: Batches, num_events: int, num_items: int) -> Transitions:
    """Counts the `num_events` events of `batches`. Of more than 2^27, only every k-th user is counted.

    Memory: 9 bytes for each counted event, about 1.1 GiB at most; at most 512 bytes for each item; 50 MiB.
    """
    every = max(1, -(-num_events // _MOST_EVENTS))
    parts, first = [np.empty(0, np.int32)], 0
    for batch in batches():
        parts.append(_separated(batch.take(np.flatnonzero((first + np.arange(batch.num_users)) % every == 0))))
        first += batch.num_users
    none = np.zeros(num_items, np.int64)
    start_V = np.zeros(num_items + 1, np.int64)
    before = Neighbours(start_V, np.empty(0, np.int32), np.empty(0, np.float32), np.zeros(num_items), none)
    item_E = np.append(np.concatenate(parts), np.int32(-1))
    del parts
    return _added(before, item_E, np.ones(len(item_E), np.bool_))


def add_transitions(known: Transitions, watched: Watched, after: int) -> Transitions:
    """`known` with the pairs of events in `watched` whose later event has a time above `after`. An item's neighbours
    that `known` has not kept begin at weight 0."""
    is_new = _separated(watched, (watched.time > after).astype(np.int32)) == 1
    return _added(known.neighbours, np.append(_separated(watched), np.int32(-1)), np.append(is_new, np.False_))


def _added(before: Neighbours, item_E: NDArray[np.int32], is_new_E: NDArray[np.bool_]) -> Transitions:
    num_items = len(before.num_V)
    start_V = np.append(0, np.cumsum(np.bincount(item_E[item_E >= 0], minlength=num_items)))
    index = EventIndex(item_E, start_V, np.empty(start_V[-1], np.int32), is_new_E)
    place_items(start_V[:-1].copy(), item_E, index.place)
    sums_V, met_V = np.zeros(num_items), np.empty(num_items, np.int32)
    total_V, length_V = np.empty(num_items), np.empty(num_items, np.int64)
    items, weights = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for first in range(0, num_items, _ROWS):
        rows = slice(first, min(first + _ROWS, num_items))
        item_RK = np.empty((rows.stop - first, _KEPT), np.int32)
        weight_RK = np.empty(item_RK.shape, np.float32)
        heaviest_neighbours(index, before, first, _WINDOW, sums_V, met_V, item_RK, weight_RK, total_V[rows])
        kept = item_RK >= 0
        length_V[rows] = kept.sum(1)
        items.append(item_RK[kept])
        weights.append(weight_RK[kept])
    num_V = before.num_V + np.bincount(item_E[is_new_E & (item_E >= 0)], minlength=num_items)
    edge_V = np.append(0, np.cumsum(length_V))
    return Transitions(Neighbours(edge_V, np.concatenate(items), np.concatenate(weights), total_V, num_V))


def _separated(watched: Watched, value: NDArray[Any] | None = None) -> NDArray[np.int32]:
    """The items (or the values) of the events of all users, with a -1 after those of each user."""
    separated = np.full(len(watched.item) + watched.num_users, -1, np.int32)
    separated[np.arange(len(watched.item)) + watched.user()] = watched.item if value is None else value
    return separated
