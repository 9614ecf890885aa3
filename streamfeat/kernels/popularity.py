"""Decayed counts of items at the edges of time bins.

Axes: E edges, H half-lives, V items, n pairs of a bin and an item that has events in it.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(
    "void(int64[::1], int32[::1], int64[::1], float64[::1], float32[:, :, ::1])",
    cache=True,
    nogil=True,
)
def add_decayed(
    time: NDArray[np.int64],
    item: NDArray[np.int32],
    edges: NDArray[np.int64],
    half_lives: NDArray[np.float64],
    sums: NDArray[np.float32],
) -> None:
    """sums[b, item, h] += 2^(-(edges[b + 1] - time) / half_lives[h]), b the last edge that is not after the time.

    The caller checks that every time lies in [edges[0], edges[-1]) and every item in [0, V).
    """
    for n in range(time.shape[0]):
        b = np.searchsorted(edges, time[n], side="right") - 1
        age = np.float64(edges[b + 1] - time[n])
        for h in range(half_lives.shape[0]):
            sums[b, item[n], h] += np.float32(2.0 ** (-age / half_lives[h]))


@njit("void(float64[:, ::1], float64[::1], int32[::1], float32[:, ::1])", cache=True, nogil=True)
def next_edge(
    counts: NDArray[np.float64], kept: NDArray[np.float64], item: NDArray[np.int32], sums: NDArray[np.float32]
) -> None:
    """Moves `counts` (H, V) to the next edge.

    kept (H,): the factor by which each decays on the way; sums (n, H): what the events of `item` (n,) in between add.
    """
    num_decays, num_items = counts.shape
    for h in range(num_decays):
        for v in range(num_items):
            counts[h, v] *= kept[h]
    for n in range(item.shape[0]):
        for h in range(num_decays):
            counts[h, item[n]] += sums[n, h]


@njit("void(float64[:, ::1], float64, float32[:, ::1])", cache=True, nogil=True)
def log_counts(counts: NDArray[np.float64], smallest: float, out: NDArray[np.float32]) -> None:
    """out (H + 1, V): ln(1 + count / smallest) of `counts` (H, V); last, 1 if the last count is 0 and 0 otherwise."""
    num_decays, num_items = counts.shape
    for h in range(num_decays):
        for v in range(num_items):
            out[h, v] = np.log1p(counts[h, v] / smallest) if counts[h, v] > 0.0 else 0.0
    for v in range(num_items):
        out[num_decays, v] = 1.0 if counts[num_decays - 1, v] == 0.0 else 0.0
