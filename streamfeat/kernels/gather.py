"""Copies chosen windows of decoded chunks into a batch's buffers and casts them from their stored dtypes.

In all kernels `stored` is (windows, tokens), and row r of the outputs is stored[rows[r]]. If rows[r] is -1, the window
is empty and gets `pad` or unknown values. Outputs are (len(rows), tokens), C-contiguous.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(
    [f"void({stored}[:, ::1], int64[::1], int32, int32[:, ::1])" for stored in ("uint8", "uint16", "uint32")],
    cache=True,
    nogil=True,
)
def gather_integers(stored: NDArray[Any], rows: NDArray[np.int64], pad: int, out: NDArray[np.int32]) -> None:
    """Integer fields as int32."""
    for r in range(rows.shape[0]):
        if rows[r] < 0:
            out[r, :] = pad
            continue
        for t in range(out.shape[1]):
            out[r, t] = np.int32(stored[rows[r], t])


@njit(
    [f"void({stored}[:, ::1], int64[::1], int64[:, ::1])" for stored in ("uint32", "int64")],
    cache=True,
    nogil=True,
)
def gather_times(stored: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Seconds since time_origin as int64, 0 in empty windows."""
    for r in range(rows.shape[0]):
        if rows[r] < 0:
            out[r, :] = 0
            continue
        for t in range(out.shape[1]):
            out[r, t] = np.int64(stored[rows[r], t])


@njit(
    "void(uint8[:, ::1], int64[::1], float32[::1], float32[:, ::1], boolean[:, ::1])",
    cache=True,
    nogil=True,
)
def gather_coded_floats(
    stored: NDArray[np.uint8],
    rows: NDArray[np.int64],
    table: NDArray[np.float32],
    out: NDArray[np.float32],
    out_known: NDArray[np.bool_],
) -> None:
    """A float field that is stored as codes. `table` (256,) holds the value of each code, NaN for missing.

    A missing value becomes 0, not known.
    """
    for r in range(rows.shape[0]):
        if rows[r] < 0:
            out[r, :] = 0.0
            out_known[r, :] = False
            continue
        for t in range(out.shape[1]):
            value = table[stored[rows[r], t]]
            known = not np.isnan(value)
            out[r, t] = value if known else np.float32(0.0)
            out_known[r, t] = known


@njit(
    "void(float32[:, ::1], int64[::1], float32[:, ::1], boolean[:, ::1])",
    cache=True,
    nogil=True,
)
def gather_floats(
    stored: NDArray[np.float32],
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
    out_known: NDArray[np.bool_],
) -> None:
    """A float field that is stored without codes, NaN for missing. A missing value becomes 0, not known."""
    for r in range(rows.shape[0]):
        if rows[r] < 0:
            out[r, :] = 0.0
            out_known[r, :] = False
            continue
        for t in range(out.shape[1]):
            value = stored[rows[r], t]
            known = not np.isnan(value)
            out[r, t] = value if known else np.float32(0.0)
            out_known[r, t] = known


@njit(
    "void(int32[:, ::1], int32[:, ::1], int32[::1], int32[:, ::1], int32[:, ::1], boolean[:, ::1])",
    cache=True,
    nogil=True,
)
def mark_tokens(
    item: NDArray[np.int32],
    user: NDArray[np.int32],
    medium_offsets: NDArray[np.int32],
    out_medium: NDArray[np.int32],
    out_segment: NDArray[np.int32],
    out_time_known: NDArray[np.bool_],
) -> None:
    """Derives each token's medium, segment and whether it has a time, from `item` and `user` before masking.

    A segment begins where the user changes. Segments count from 0 in each window; PAD has -1. Only events have a time.
    With n media, CLS and PAD tokens have the media n and n + 1.
    """
    num_media = medium_offsets.shape[0] - 1
    num_items = medium_offsets[num_media]
    for r in range(item.shape[0]):
        segment = -1
        last_user = -1
        for t in range(item.shape[1]):
            token = item[r, t]
            if token < num_items:
                medium = 0
                while token >= medium_offsets[medium + 1]:
                    medium += 1
            else:
                medium = num_media + token - num_items
            out_medium[r, t] = medium
            out_time_known[r, t] = token < num_items
            if token == num_items + 1:
                out_segment[r, t] = -1
                continue
            if user[r, t] != last_user:
                segment += 1
                last_user = user[r, t]
            out_segment[r, t] = segment
