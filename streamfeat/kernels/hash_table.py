"""Dense numbers for integer keys: an open-addressing hash table in arrays of the caller."""

from typing import NamedTuple

import numpy as np
from numba import int32, int64, njit, types, void
from numpy.typing import NDArray

from streamfeat.kernels.draws import splitmix64


class Table(NamedTuple):
    """Known pairs of a key and a tag, in order of their numbers, and the slots in which the numbers are found."""

    keys: NDArray[np.int64]
    tags: NDArray[np.int32]
    slots: NDArray[np.int32]  # a number, or -1: free; the length is a power of two and at least twice that of `keys`


_TABLE = types.BaseTuple.from_types([int64[::1], int32[::1], int32[::1]], Table)


@njit(int64(int64[::1], int32[::1], _TABLE, int64, int64, int32[::1]), cache=True, nogil=True)
def code_keys(
    keys: NDArray[np.int64],
    tags: NDArray[np.int32],
    table: Table,
    num_unique: int,
    first: int,
    out: NDArray[np.int32],
) -> int:
    """out[i] = number of (keys[i], tags[i]) in order of first appearance, for i from `first` on.

    Stops when the table is half full. Returns num_unique_after * 2^32 + rows_done: the caller can grow the table and
    continue.
    """
    unique_keys, unique_tags, slots = table
    mask = np.uint64(slots.shape[0] - 1)
    limit = slots.shape[0] // 2
    for i in range(first, keys.shape[0]):
        slot = splitmix64(np.uint64(keys[i]) ^ (np.uint64(tags[i]) << np.uint64(56))) & mask
        while True:
            number = slots[slot]
            if number < 0:
                if num_unique >= limit:
                    return (num_unique << 32) + i
                number = np.int32(num_unique)
                slots[slot] = number
                unique_keys[number] = keys[i]
                unique_tags[number] = tags[i]
                num_unique += 1
                break
            if unique_keys[number] == keys[i] and unique_tags[number] == tags[i]:
                break
            slot = (slot + np.uint64(1)) & mask
        out[i] = number
    return (num_unique << 32) + int(keys.shape[0])


@njit("int64(float32[::1], float32[::1])", cache=True, nogil=True)
def collect_levels(values: NDArray[np.float32], levels: NDArray[np.float32]) -> int:
    """Writes the distinct values without NaN into `levels`, ascending; returns their number.

    Returns -1 if there are more than `levels` can hold. Faster than a sort if there are few distinct values.
    """
    num = 0
    for value in values:
        if np.isnan(value):
            continue
        low, high = 0, num
        while low < high:
            middle = (low + high) // 2
            if levels[middle] < value:
                low = middle + 1
            else:
                high = middle
        if low < num and levels[low] == value:
            continue
        if num == levels.shape[0]:
            return -1
        for k in range(num, low, -1):
            levels[k] = levels[k - 1]
        levels[low] = value
        num += 1
    return num


@njit(void(_TABLE, int64), cache=True, nogil=True)
def rebuild_slots(table: Table, num_unique: int) -> None:
    """Fills the slots (all -1) with the numbers of the known pairs."""
    keys, tags, slots = table
    mask = np.uint64(slots.shape[0] - 1)
    for number in range(num_unique):
        key = np.uint64(keys[number]) ^ (np.uint64(tags[number]) << np.uint64(56))
        slot = splitmix64(key) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = np.int32(number)
