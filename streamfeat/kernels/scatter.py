"""Finds the partition of each user and moves rows into the order of partitions."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamfeat.kernels.draws import fold

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)


@njit("void(int64[::1], uint64, int64, int32[::1])", cache=True, nogil=True)
def partition_of_ints(ids: NDArray[np.int64], state: np.uint64, num_partitions: int, out: NDArray[np.int32]) -> None:
    """out[i] = partition of the user whose raw id is the integer ids[i]. `num_partitions` is a power of two."""
    mask = np.uint64(num_partitions - 1)
    for i in range(ids.shape[0]):
        out[i] = np.int32(fold(state, np.uint64(ids[i])) & mask)


@njit("void(int32[::1], uint8[::1], uint64, int64, int32[::1])", cache=True, nogil=True)
def partition_of_texts(
    offsets: NDArray[np.int32],
    data: NDArray[np.uint8],
    state: np.uint64,
    num_partitions: int,
    out: NDArray[np.int32],
) -> None:
    """out[i] = partition of the user whose raw id is the text data[offsets[i]:offsets[i+1]], hashed by FNV-1a."""
    mask = np.uint64(num_partitions - 1)
    for i in range(out.shape[0]):
        h = _FNV_OFFSET
        for j in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(data[j])) * _FNV_PRIME
        out[i] = np.int32(fold(state, h) & mask)


@njit("void(int32[::1], int64[::1], int64[::1])", cache=True, nogil=True)
def counting_sort(groups: NDArray[np.int32], starts: NDArray[np.int64], destination: NDArray[np.int64]) -> None:
    """A stable counting sort: row i goes to `destination[i]`; group g gets the rows starts[g]:starts[g+1].

    The caller sets `starts` (groups + 1,) to zero; it is filled here.
    """
    num_groups = starts.shape[0] - 1
    for i in range(groups.shape[0]):
        starts[groups[i] + 1] += 1
    for g in range(num_groups):
        starts[g + 1] += starts[g]
    cursor = starts[:num_groups].copy()
    for i in range(groups.shape[0]):
        destination[i] = cursor[groups[i]]
        cursor[groups[i]] += 1


@njit(cache=True, nogil=True)
def scatter_rows(values: NDArray[Any], destination: NDArray[np.int64], out: NDArray[Any]) -> None:
    """out[destination[i]] = values[i]."""
    for i in range(values.shape[0]):
        out[destination[i]] = values[i]
