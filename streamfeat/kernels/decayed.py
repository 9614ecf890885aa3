"""Counts of an item's events that halve with time, and sums of rows of a table.

The events of item i are `time[offsets[i]:offsets[i+1]]`, ascending. The caller checks offsets and places.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit("void(int64[::1], int64[::1], float64, float32[::1])", cache=True, nogil=True)
def decayed_sums(
    offsets: NDArray[np.int64], time: NDArray[np.int64], half_life: float, out: NDArray[np.float32]
) -> None:
    """out[e] = Σ 2^(-(time[e] - s) / half_life) over the item's events up to e, itself included; s is their time."""
    for i in range(offsets.shape[0] - 1):
        total = 0.0
        for e in range(offsets[i], offsets[i + 1]):
            if e > offsets[i]:
                total *= 2.0 ** (-(time[e] - time[e - 1]) / half_life)
            total += 1.0
            out[e] = total


@njit("void(int64[::1], int64[::1], float32[::1], float64, int64[::1], float64[:, ::1])", cache=True, nogil=True)
def decayed_counts(
    offsets: NDArray[np.int64],
    time: NDArray[np.int64],
    sums: NDArray[np.float32],
    half_life: float,
    asked: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """out[i, q] = Σ 2^(-(asked[q] - s) / half_life) over the item's events at times s < asked[q].

    `asked` ascends; `sums` comes from `decayed_sums`. Of two counts that are equal, or below 1e-9, that of the item
    with more events before asked[q] is higher.
    """
    for i in range(offsets.shape[0] - 1):
        # The first event that is not before asked[0]; from there on both lists only go up.
        low, high = offsets[i], offsets[i + 1]
        while low < high and asked.shape[0]:
            middle = (low + high) // 2
            if time[middle] < asked[0]:
                low = middle + 1
            else:
                high = middle
        for q in range(asked.shape[0]):
            while low < offsets[i + 1] and time[low] < asked[q]:
                low += 1
            out[i, q] = 0.0
            if low > offsets[i]:
                num = low - offsets[i]
                out[i, q] = sums[low - 1] * 2.0 ** (-(asked[q] - time[low - 1]) / half_life) + 1e-9 * num / (1.0 + num)


@njit("void(int64[::1], int32[::1], float32[::1], float32[:, ::1], int64, float32[:, ::1])", cache=True, nogil=True)
def add_weighted_rows(
    offsets: NDArray[np.int64],
    place: NDArray[np.int32],
    weight: NDArray[np.float32],
    table: NDArray[np.float32],
    first: int,
    out: NDArray[np.float32],
) -> None:
    """out[u, c] += Σ weight[e] · table[place[e], first + c] over the events e of history u. A place of -1 adds 0."""
    for u in range(offsets.shape[0] - 1):
        for e in range(offsets[u], offsets[u + 1]):
            if place[e] >= 0:
                for c in range(out.shape[1]):
                    out[u, c] += weight[e] * table[place[e], first + c]
