"""Which items follow an item most often in histories, and what the last items of a history say about the next one.

Axes: E events, V items, K neighbours of an item at most, N histories, P places of a history's last items.
"""

from typing import NamedTuple

import numpy as np
from numba import boolean, float32, float64, int32, int64, njit, types, void
from numpy.typing import NDArray


class EventIndex(NamedTuple):
    """The events of all histories, one history after the other, and where each item lies."""

    item_E: NDArray[np.int32]  # oldest first; -1 after the last event of each history
    start_V: NDArray[np.int64]  # (V + 1,): item i lies at the places place[start[i]:start[i+1]]
    place: NDArray[np.int32]  # ascending for each item
    is_new_E: NDArray[np.bool_]  # whether pairs of this event and an earlier one count


class Neighbours(NamedTuple):
    """The neighbours of item i, in no particular order: [start[i]:start[i+1]] of `item` and `weight`."""

    start_V: NDArray[np.int64]  # (V + 1,)
    item: NDArray[np.int32]
    weight: NDArray[np.float32]
    total_V: NDArray[np.float64]  # of all neighbours, left-out ones included
    num_V: NDArray[np.int64]  # events of each item


_INDEX = types.BaseTuple.from_types([int32[::1], int64[::1], int32[::1], boolean[::1]], EventIndex)
_NEIGHBOURS = types.BaseTuple.from_types([int64[::1], int32[::1], float32[::1], float64[::1], int64[::1]], Neighbours)


@njit("boolean(int32, float32, int32, float32)", cache=True, nogil=True, inline="always")
def _is_lighter(item: int, weight: np.floating, other: int, other_weight: np.floating) -> bool:
    return weight < other_weight or (weight == other_weight and item > other)


@njit("void(int32[::1], float32[::1], int64)", cache=True, nogil=True)
def _sift_down(item_K: NDArray[np.int32], weight_K: NDArray[np.float32], at: int) -> None:
    """Restores the heap below `at`: no entry is lighter than the one above it."""
    while True:
        lightest = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < item_K.shape[0] and _is_lighter(
                item_K[child], weight_K[child], item_K[lightest], weight_K[lightest]
            ):
                lightest = child
        if lightest == at:
            return
        item_K[at], item_K[lightest] = item_K[lightest], item_K[at]
        weight_K[at], weight_K[lightest] = weight_K[lightest], weight_K[at]
        at = lightest


@njit(void(int64[::1], int32[::1], int32[::1]), cache=True, nogil=True)
def place_items(next_V: NDArray[np.int64], item_E: NDArray[np.int32], place: NDArray[np.int32]) -> None:
    """Writes the places of each item into `place`, from next_V[item] on; next_V ends as the next item's start."""
    for e in range(item_E.shape[0]):
        if item_E[e] >= 0:
            place[next_V[item_E[e]]] = e
            next_V[item_E[e]] += 1


@njit(
    void(_INDEX, _NEIGHBOURS, int64, int64, float64[::1], int32[::1], int32[:, ::1], float32[:, ::1], float64[::1]),
    cache=True,
    nogil=True,
)
def heaviest_neighbours(
    events: EventIndex,
    before: Neighbours,
    first: int,
    window: int,
    sums_V: NDArray[np.float64],
    met_V: NDArray[np.int32],
    item_RK: NDArray[np.int32],
    weight_RK: NDArray[np.float32],
    total_R: NDArray[np.float64],
) -> None:
    """Row r: the K heaviest neighbours of item first + r; -1 where it has fewer. total_R: the weight of all neighbours.

    An event at most `window` events after one of the item weighs 1 / lag. This is added to `before`, which knows only
    the neighbours that it has kept. Of equal weights the lower item is kept. `sums_V` and `met_V` are scratch memory;
    `sums_V` is 0 before and after.
    """
    for r in range(item_RK.shape[0]):
        num_met, total = 0, before.total_V[first + r]
        for at in range(before.start_V[first + r], before.start_V[first + r + 1]):
            met_V[num_met] = before.item[at]
            sums_V[before.item[at]] = before.weight[at]
            num_met += 1
        for at in range(events.start_V[first + r], events.start_V[first + r + 1]):
            place = events.place[at]
            for lag in range(1, window + 1):
                later = place + lag
                if events.item_E[later] < 0:
                    break
                if not events.is_new_E[later]:
                    continue
                item = events.item_E[later]
                if sums_V[item] == 0.0:
                    met_V[num_met] = item
                    num_met += 1
                sums_V[item] += 1.0 / lag
                total += 1.0 / lag
        kept = 0
        for m in range(num_met):
            item, weight = met_V[m], np.float32(sums_V[met_V[m]])
            sums_V[item] = 0.0
            if kept < item_RK.shape[1]:
                item_RK[r, kept], weight_RK[r, kept] = item, weight
                kept += 1
                if kept == item_RK.shape[1]:
                    for parent in range(kept // 2 - 1, -1, -1):
                        _sift_down(item_RK[r], weight_RK[r], parent)
            elif _is_lighter(item_RK[r, 0], weight_RK[r, 0], item, weight):
                item_RK[r, 0], weight_RK[r, 0] = item, weight
                _sift_down(item_RK[r], weight_RK[r], 0)
        item_RK[r, kept:] = -1
        total_R[r] = total


@njit(
    void(_NEIGHBOURS, float64[::1], int32[:, ::1], float64[::1], float64, int64, float32[:, ::1]),
    cache=True,
    nogil=True,
)
def log_lift(
    neighbours: Neighbours,
    share_V: NDArray[np.float64],
    last_NP: NDArray[np.int32],
    weight_P: NDArray[np.float64],
    smoothing: float,
    low: int,
    out: NDArray[np.float32],
) -> None:
    """out[n, j] = ln(1 + s / (c · share)) of item low + j after the last items of history n; out is 0 before.

    s = Σ_p weight_p · T[i_p, j] / (T_i + smoothing), c = Σ_p weight_p · (smoothing + left out) / (T_i + smoothing).
    `last_NP`: the most recent item first, then -1. The caller checks the items, and that the smoothing is above 0.
    """
    for n in range(last_NP.shape[0]):
        rest = 0.0
        for p in range(last_NP.shape[1]):
            item = last_NP[n, p]
            if item < 0:
                break
            left_out = neighbours.total_V[item]
            weight = weight_P[p] / (left_out + smoothing)
            for e in range(neighbours.start_V[item], neighbours.start_V[item + 1]):
                left_out -= neighbours.weight[e]
                j = neighbours.item[e] - low
                if 0 <= j < out.shape[1]:
                    out[n, j] += np.float32(weight * neighbours.weight[e])
            rest += weight * (smoothing + max(left_out, 0.0))
        if rest > 0.0:
            for j in range(out.shape[1]):
                if out[n, j] > 0.0:
                    out[n, j] = np.float32(np.log1p(out[n, j] / (rest * share_V[low + j])))
