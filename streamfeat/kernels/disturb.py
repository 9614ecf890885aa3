"""Mask policy `seed`: masks, keeps or replaces item, rating, time and position of the tokens that `pick_seed` picked.

Arrays and draws are as in `objectives`. Each field has its own loop: the four take 150 us on 64 windows of 1024 tokens.
One loop over the picked tokens for all four fields took 221 us, four loops over a list of a row's picked tokens 195,
four loops over one generator of the picked tokens 8 times as long.
"""

from typing import NamedTuple

import numpy as np
from numba import boolean, float32, float64, int32, int64, njit, types, uint64, void
from numpy.typing import NDArray

from streamfeat.kernels.draws import fold, to_below, to_unit


class Disturbance(NamedTuple):
    """The rule for one field of a picked token. A draw from `state` below `mask_below` masks it, below `keep_below`
    keeps it. Otherwise a value drawn from `random_state` replaces it."""

    state: np.uint64
    random_state: np.uint64
    mask_below: float
    keep_below: float


MASKED, KEPT, REPLACED = 0, 1, 2

_INTS, _TIMES, _FLOATS, _FLAGS = int32[:, ::1], int64[:, ::1], float32[:, ::1], boolean[:, ::1]
_DISTURBANCE = types.NamedTuple([uint64, uint64, float64, float64], Disturbance)


@njit(cache=True, nogil=True, inline="always")
def in_window(field: Disturbance, window: int) -> Disturbance:
    """`field` with its states for one window."""
    state, random_state = fold(field.state, np.uint64(window)), fold(field.random_state, np.uint64(window))
    return Disturbance(state, random_state, field.mask_below, field.keep_below)


@njit(cache=True, nogil=True, inline="always")
def fate(field: Disturbance, is_picked: bool, token: int) -> int:
    """MASKED, KEPT or REPLACED, for a field of a token."""
    if not is_picked:
        return KEPT
    draw = to_unit(fold(field.state, np.uint64(token)))
    if draw < field.mask_below:
        return MASKED
    return KEPT if draw < field.keep_below else REPLACED


@njit(void(_FLAGS, int64[::1], _DISTURBANCE, int64, int32[::1], _INTS, _INTS), cache=True, nogil=True)
def disturb_items(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    field: Disturbance,
    mask: int,
    medium_offsets: NDArray[np.int32],
    medium: NDArray[np.int32],
    item: NDArray[np.int32],
) -> None:
    """Items of picked tokens are masked, kept, or replaced by a random item of the same medium."""
    for r in range(picked.shape[0]):
        here = in_window(field, window[r])
        for t in range(picked.shape[1]):
            what = fate(here, picked[r, t], t)
            if what == MASKED:
                item[r, t] = mask
            elif what == REPLACED:
                low, high = medium_offsets[medium[r, t]], medium_offsets[medium[r, t] + 1]
                item[r, t] = low + to_below(fold(here.random_state, np.uint64(t)), high - low)


@njit(void(_FLAGS, int64[::1], _DISTURBANCE, int64, int64, _INTS), cache=True, nogil=True)
def disturb_positions(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    field: Disturbance,
    mask: int,
    num_positions: int,
    position: NDArray[np.int32],
) -> None:
    """Positions of picked tokens are masked, kept, or replaced by a random one of `num_positions`."""
    for r in range(picked.shape[0]):
        here = in_window(field, window[r])
        for t in range(picked.shape[1]):
            what = fate(here, picked[r, t], t)
            if what == MASKED:
                position[r, t] = mask
            elif what == REPLACED:
                position[r, t] = to_below(fold(here.random_state, np.uint64(t)), num_positions)


@njit(void(_FLAGS, int64[::1], _DISTURBANCE, float64, _FLOATS, _FLAGS), cache=True, nogil=True)
def disturb_ratings(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    field: Disturbance,
    end: float,
    rating: NDArray[np.float32],
    rating_known: NDArray[np.bool_],
) -> None:
    """Ratings of picked tokens become unknown, are kept (known or not), or are replaced, uniform in [0, end)."""
    below_end = np.nextafter(np.float32(end), np.float32(0.0))  # rounding to float32 could give `end` itself
    for r in range(picked.shape[0]):
        here = in_window(field, window[r])
        for t in range(picked.shape[1]):
            what = fate(here, picked[r, t], t)
            if what == MASKED:
                rating[r, t] = 0.0
                rating_known[r, t] = False
            elif what == REPLACED:
                value = np.float32(to_unit(fold(here.random_state, np.uint64(t))) * end)
                rating[r, t] = min(value, below_end)
                rating_known[r, t] = True


@njit(void(_FLAGS, int64[::1], _DISTURBANCE, int64, int64, _TIMES, _FLAGS), cache=True, nogil=True)
def disturb_times(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    field: Disturbance,
    time_min: int,
    time_max: int,
    time: NDArray[np.int64],
    time_known: NDArray[np.bool_],
) -> None:
    """Times of picked tokens become unknown, are kept, or are replaced by a random second of [time_min, time_max)."""
    for r in range(picked.shape[0]):
        here = in_window(field, window[r])
        for t in range(picked.shape[1]):
            what = fate(here, picked[r, t], t)
            if what == MASKED:
                time[r, t] = 0
                time_known[r, t] = False
            elif what == REPLACED:
                share = to_unit(fold(here.random_state, np.uint64(t)))
                time[r, t] = np.int64(np.floor(time_min + share * (time_max - time_min)))
