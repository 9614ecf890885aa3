"""The objectives: what of a window the model is shown, and what it is asked.

All arrays are (windows, tokens) as a batch holds them, C-contiguous; `window` (windows,) numbers the rows and
`segment` is -1 on PAD tokens. A token has an item target if it is an event that is not planned, and a rating
target if it has a rating too; `target_item` is the item that either of them is about. A draw of a token is keyed
by its purpose's state, its window and its place in the window, so masks hang on nothing else.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamfeat.kernels.draws import fold, to_below, to_unit
from streamfeat.schema import PLANNED


@njit(
    "void(int64[::1], int32, uint64, float64, int32[:, ::1], int32[:, ::1], int32[:, ::1], int64[:, ::1],"
    "boolean[:, ::1], float32[:, ::1], boolean[:, ::1], int64[:, ::1], boolean[:, ::1], int32[:, ::1],"
    "float32[:, ::1], float32[:, ::1], float32[:, ::1])",
    cache=True,
    nogil=True,
)
def ask_next(
    window: NDArray[np.int64],
    num_items: int,
    hide_state: np.uint64,
    hide_share: float,
    item: NDArray[np.int32],
    status: NDArray[np.int32],
    segment: NDArray[np.int32],
    time: NDArray[np.int64],
    time_known: NDArray[np.bool_],
    rating: NDArray[np.float32],
    rating_known: NDArray[np.bool_],
    out_told_time: NDArray[np.int64],
    out_told_time_known: NDArray[np.bool_],
    out_target_item: NDArray[np.int32],
    out_target_rating: NDArray[np.float32],
    out_weight_item: NDArray[np.float32],
    out_weight_rating: NDArray[np.float32],
) -> None:
    """Causal: a token is asked for, and told the time of, the event after it in the same segment.

    The told times of a segment are all hidden with probability `hide_share`, by one draw of its first token.
    """
    num_tokens = item.shape[1]
    for r in range(item.shape[0]):
        state = fold(hide_state, np.uint64(window[r]))
        hidden = False
        for t in range(num_tokens):
            here = segment[r, t]
            if here >= 0 and (t == 0 or here != segment[r, t - 1]):
                hidden = to_unit(fold(state, np.uint64(t))) < hide_share
            after = min(t + 1, num_tokens - 1)
            follows = t + 1 < num_tokens and here >= 0 and segment[r, after] == here
            # Loaded whether wanted or not, so that the choices below need no branch.
            next_item, next_rating, next_time = item[r, after], rating[r, after], time[r, after]
            told = follows & time_known[r, after] & (not hidden)
            wants = follows & (next_item < num_items) & (status[r, after] != PLANNED)
            wants_rating = wants & rating_known[r, after]
            out_told_time[r, t] = next_time if told else 0
            out_told_time_known[r, t] = told
            out_target_item[r, t] = next_item if wants else 0
            out_weight_item[r, t] = wants
            out_target_rating[r, t] = next_rating if wants_rating else np.float32(0.0)
            out_weight_rating[r, t] = wants_rating


@njit(
    "void(int64[::1], int32, int32, int32, uint64, uint64, float64, int32[:, ::1], int32[:, ::1], float32[:, ::1],"
    "boolean[:, ::1], float32[:, ::1], boolean[:, ::1], int32[:, ::1], float32[:, ::1], float32[:, ::1],"
    "float32[:, ::1])",
    cache=True,
    nogil=True,
)
def mask_disjoint(
    window: NDArray[np.int64],
    num_items: int,
    item_mask: int,
    status_mask: int,
    item_state: np.uint64,
    rating_state: np.uint64,
    share: float,
    item: NDArray[np.int32],
    status: NDArray[np.int32],
    rating: NDArray[np.float32],
    rating_known: NDArray[np.bool_],
    completion: NDArray[np.float32],
    completion_known: NDArray[np.bool_],
    out_target_item: NDArray[np.int32],
    out_target_rating: NDArray[np.float32],
    out_weight_item: NDArray[np.float32],
    out_weight_rating: NDArray[np.float32],
) -> None:
    """Policy `disjoint`: `share` of the item targets are asked for the item alone; `share` of the rating targets
    that remain for the rating alone, the item in view. Both lose rating, status and completion.
    """
    for r in range(item.shape[0]):
        for_item = fold(item_state, np.uint64(window[r]))
        for_rating = fold(rating_state, np.uint64(window[r]))
        for t in range(item.shape[1]):
            has_item = item[r, t] < num_items and status[r, t] != PLANNED
            wants = has_item and to_unit(fold(for_item, np.uint64(t))) < share
            has_rating = has_item and not wants and rating_known[r, t]
            wants_rating = has_rating and to_unit(fold(for_rating, np.uint64(t))) < share
            out_target_item[r, t] = item[r, t] if wants or wants_rating else 0
            out_weight_item[r, t] = 1.0 if wants else 0.0
            out_target_rating[r, t] = rating[r, t] if wants_rating else np.float32(0.0)
            out_weight_rating[r, t] = 1.0 if wants_rating else 0.0
            if wants:
                item[r, t] = item_mask
            if wants or wants_rating:
                status[r, t] = status_mask
                rating[r, t] = 0.0
                rating_known[r, t] = False
                completion[r, t] = 0.0
                completion_known[r, t] = False


@njit(
    "void(int64[::1], int32, int32, uint64, float64, int32[:, ::1], float32[:, ::1], boolean[:, ::1],"
    "int32[:, ::1], float32[:, ::1], boolean[:, ::1], boolean[:, ::1], int32[:, ::1], float32[:, ::1],"
    "float32[:, ::1], float32[:, ::1])",
    cache=True,
    nogil=True,
)
def pick_seed(
    window: NDArray[np.int64],
    num_items: int,
    status_mask: int,
    state: np.uint64,
    share: float,
    item: NDArray[np.int32],
    rating: NDArray[np.float32],
    rating_known: NDArray[np.bool_],
    status: NDArray[np.int32],
    completion: NDArray[np.float32],
    completion_known: NDArray[np.bool_],
    out_picked: NDArray[np.bool_],
    out_target_item: NDArray[np.int32],
    out_target_rating: NDArray[np.float32],
    out_weight_item: NDArray[np.float32],
    out_weight_rating: NDArray[np.float32],
) -> None:
    """Policy `seed`: `share` of the tokens with a target are picked, asked for all that they have, and lose
    status and completion. Their other fields are left to the `disturb_*` kernels.
    """
    for r in range(item.shape[0]):
        for_token = fold(state, np.uint64(window[r]))
        for t in range(item.shape[1]):
            has_item = item[r, t] < num_items and status[r, t] != PLANNED
            wants = has_item and to_unit(fold(for_token, np.uint64(t))) < share
            wants_rating = wants and rating_known[r, t]
            out_picked[r, t] = wants
            out_target_item[r, t] = item[r, t] if wants else 0
            out_weight_item[r, t] = 1.0 if wants else 0.0
            out_target_rating[r, t] = rating[r, t] if wants_rating else np.float32(0.0)
            out_weight_rating[r, t] = 1.0 if wants_rating else 0.0
            if wants:
                status[r, t] = status_mask
                completion[r, t] = 0.0
                completion_known[r, t] = False


@njit(
    "void(boolean[:, ::1], int64[::1], uint64, uint64, float64, float64, int32, int32[::1], int32[:, ::1],"
    "int32[:, ::1])",
    cache=True,
    nogil=True,
)
def disturb_items(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    state: np.uint64,
    random_state: np.uint64,
    mask_below: float,
    keep_below: float,
    mask: int,
    medium_offsets: NDArray[np.int32],
    medium: NDArray[np.int32],
    item: NDArray[np.int32],
) -> None:
    """Items of picked tokens: masked where the draw is below `mask_below`, kept below `keep_below`, else any
    item of the same medium.
    """
    for r in range(picked.shape[0]):
        for_token = fold(state, np.uint64(window[r]))
        for_random = fold(random_state, np.uint64(window[r]))
        for t in range(picked.shape[1]):
            if not picked[r, t]:
                continue
            draw = to_unit(fold(for_token, np.uint64(t)))
            if draw < mask_below:
                item[r, t] = mask
            elif draw >= keep_below:
                low, high = medium_offsets[medium[r, t]], medium_offsets[medium[r, t] + 1]
                item[r, t] = low + to_below(fold(for_random, np.uint64(t)), high - low)


@njit(
    "void(boolean[:, ::1], int64[::1], uint64, uint64, float64, float64, int32, int32, int32[:, ::1])",
    cache=True,
    nogil=True,
)
def disturb_positions(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    state: np.uint64,
    random_state: np.uint64,
    mask_below: float,
    keep_below: float,
    mask: int,
    num_positions: int,
    position: NDArray[np.int32],
) -> None:
    """Positions of picked tokens: masked, kept, or any of `num_positions`."""
    for r in range(picked.shape[0]):
        for_token = fold(state, np.uint64(window[r]))
        for_random = fold(random_state, np.uint64(window[r]))
        for t in range(picked.shape[1]):
            if not picked[r, t]:
                continue
            draw = to_unit(fold(for_token, np.uint64(t)))
            if draw < mask_below:
                position[r, t] = mask
            elif draw >= keep_below:
                position[r, t] = to_below(fold(for_random, np.uint64(t)), num_positions)


@njit(
    "void(boolean[:, ::1], int64[::1], uint64, uint64, float64, float64, float64, float32[:, ::1],boolean[:, ::1])",
    cache=True,
    nogil=True,
)
def disturb_ratings(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    state: np.uint64,
    random_state: np.uint64,
    mask_below: float,
    keep_below: float,
    span: float,
    rating: NDArray[np.float32],
    rating_known: NDArray[np.bool_],
) -> None:
    """Ratings of picked tokens: unknown, as they are (which may be unknown), or uniform in [0, span)."""
    below_span = np.nextafter(np.float32(span), np.float32(0.0))  # rounding to float32 must not reach `span`
    for r in range(picked.shape[0]):
        for_token = fold(state, np.uint64(window[r]))
        for_random = fold(random_state, np.uint64(window[r]))
        for t in range(picked.shape[1]):
            if not picked[r, t]:
                continue
            draw = to_unit(fold(for_token, np.uint64(t)))
            if draw < mask_below:
                rating[r, t] = 0.0
                rating_known[r, t] = False
            elif draw >= keep_below:
                value = np.float32(to_unit(fold(for_random, np.uint64(t))) * span)
                rating[r, t] = min(value, below_span)
                rating_known[r, t] = True


@njit(
    "void(boolean[:, ::1], int64[::1], uint64, uint64, float64, float64, int64, int64, int64[:, ::1],boolean[:, ::1])",
    cache=True,
    nogil=True,
)
def disturb_times(
    picked: NDArray[np.bool_],
    window: NDArray[np.int64],
    state: np.uint64,
    random_state: np.uint64,
    mask_below: float,
    keep_below: float,
    time_min: int,
    time_max: int,
    time: NDArray[np.int64],
    time_known: NDArray[np.bool_],
) -> None:
    """Times of picked tokens: unknown, kept, or a uniform whole second of [time_min, time_max)."""
    for r in range(picked.shape[0]):
        for_token = fold(state, np.uint64(window[r]))
        for_random = fold(random_state, np.uint64(window[r]))
        for t in range(picked.shape[1]):
            if not picked[r, t]:
                continue
            draw = to_unit(fold(for_token, np.uint64(t)))
            if draw < mask_below:
                time[r, t] = 0
                time_known[r, t] = False
            elif draw >= keep_below:
                share = to_unit(fold(for_random, np.uint64(t)))
                time[r, t] = np.int64(np.floor(time_min + share * (time_max - time_min)))


@njit("void(int32[:, ::1], int32[:, ::1], int64, int64[::1], float32[:, ::1])", cache=True, nogil=True)
def share_weights(
    medium: NDArray[np.int32],
    segment: NDArray[np.int32],
    shift: int,
    counts: NDArray[np.int64],
    weight: NDArray[np.float32],
) -> None:
    """Divide each weight of 1 by the number of targets of its segment and medium, so that they sum to 1.

    The target of token t is of the medium of token t + shift: 1 under the causal objective, else 0.
    `counts` is scratch memory, (media,).
    """
    num_tokens = weight.shape[1]
    for r in range(weight.shape[0]):
        start = 0
        while start < num_tokens:
            counts[:] = 0
            stop = start
            while stop < num_tokens and segment[r, stop] == segment[r, start]:
                if weight[r, stop] > 0:
                    counts[medium[r, stop + shift]] += 1
                stop += 1
            for t in range(start, stop):
                if weight[r, t] > 0:
                    weight[r, t] = 1.0 / counts[medium[r, t + shift]]
            start = stop
