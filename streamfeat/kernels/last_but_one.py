"""Finds the events of a history that are held out."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

LEAST_TARGETS = 3  # a history with fewer targets is not held out: after the last two, one must be left for training


@njit("void(uint8[::1], int64[::1], uint8, int64[::1])", cache=True, nogil=True)
def last_but_one_targets(
    statuses: NDArray[np.uint8], starts: NDArray[np.int64], planned: int, out: NDArray[np.int64]
) -> None:
    """out[u] = place in history u of its last but one event with an item target; -1 if it has too few targets.

    Reads histories from the end, so long ones take no more time than short ones.
    """
    for u in range(starts.shape[0] - 1):
        num, place = 0, -1
        k = starts[u + 1] - 1
        while k >= starts[u] and num < LEAST_TARGETS:
            if statuses[k] != planned:
                num += 1
                if num == 2:
                    place = k - starts[u]
            k -= 1
        out[u] = place if num == LEAST_TARGETS else -1
