"""Counts how often items occur together, in a dense table of item pairs.

In both kernels history u is `place[offsets[u]:offsets[u+1]]`, oldest first. A place is a row of `table` (M, M), or -1
for an item without a row. The caller checks the places.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit("void(int64[::1], int32[::1], int64, float64, float32[:, ::1])", cache=True, nogil=True)
def add_neighbours(
    offsets: NDArray[np.int64], place: NDArray[np.int32], window: int, backward: float, table: NDArray[np.float32]
) -> None:
    """For every two events of a history that are at most `window` events apart, adds 1 / lag to the row of the earlier
    one and `backward` / lag to the row of the later one."""
    for u in range(offsets.shape[0] - 1):
        for later in range(offsets[u], offsets[u + 1]):
            if place[later] < 0:
                continue
            for earlier in range(max(offsets[u], later - window), later):
                if place[earlier] < 0:
                    continue
                weight = 1.0 / (later - earlier)
                table[place[earlier], place[later]] += np.float32(weight)
                table[place[later], place[earlier]] += np.float32(backward * weight)


@njit("void(int64[::1], int32[::1], float32[::1], float32[:, ::1])", cache=True, nogil=True)
def add_cooccurrences(
    offsets: NDArray[np.int64], place: NDArray[np.int32], weight: NDArray[np.float32], table: NDArray[np.float32]
) -> None:
    """Adds weight[u] for every ordered pair of events of history u, including each event with itself.

    A place must not occur twice in a history.
    """
    for u in range(offsets.shape[0] - 1):
        for first in range(offsets[u], offsets[u + 1]):
            if place[first] < 0:
                continue
            for second in range(offsets[u], offsets[u + 1]):
                if place[second] >= 0:
                    table[place[first], place[second]] += weight[u]
