"""First-fit: places segments into windows of one length without cutting them."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


def room_tree(num_windows: int, window_len: int) -> NDArray[np.int32]:
    """The tree for `first_fit` with up to `num_windows` windows, all empty."""
    num_leaves = 1 << max(num_windows - 1, 0).bit_length()
    return np.full(2 * num_leaves, window_len, np.int32)


@njit("int64(int64[::1], int64, int32[::1], int64[::1])", cache=True, nogil=True)
def first_fit(lengths: NDArray[np.int64], window_len: int, rooms: NDArray[np.int32], out: NDArray[np.int64]) -> int:
    """Puts each segment, in order, into the first window with enough room, after the segments that are there already.

    out[i] = the token where segment i (of 1 to window_len tokens) begins, counted over all windows. Returns the number
    of windows used. `rooms` comes from `room_tree`. Its leaves are the windows' rooms; node n has the children 2n and
    2n + 1 and holds the largest room below it. A scan of all windows would take quadratic time.
    """
    num_leaves = rooms.shape[0] // 2
    num_used = 0
    for i in range(lengths.shape[0]):
        node = 1
        while node < num_leaves:
            node = 2 * node if rooms[2 * node] >= lengths[i] else 2 * node + 1
        window = node - num_leaves
        out[i] = window * window_len + window_len - rooms[node]
        rooms[node] -= np.int32(lengths[i])
        num_used = max(num_used, window + 1)
        node //= 2
        while node > 0:
            largest = max(rooms[2 * node], rooms[2 * node + 1])
            if rooms[node] == largest:
                break
            rooms[node] = largest
            node //= 2
    return num_used
