"""The objectives: they write the targets of a window and mask its inputs.

All arrays are (windows, tokens) as in a batch, C-contiguous. `window` (windows,) holds the number of each row's window.
`eligible` marks the tokens that may become targets: all with an item target (events that are not planned), or only the
last one of each segment. A target has a rating target if its rating is known. A draw for a token depends only on its
purpose's state, its window and its place in the window; so does every mask.

Arrays that belong together are passed as one NamedTuple. A kernel takes each array out of it before the loop. Inside
the loop Numba would count a reference at every token: `ask_next` on 64 windows of 1024 tokens took 270 us instead of
185.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, float64, int32, int64, njit, types, uint64, void
from numpy.typing import NDArray

from streamfeat.kernels.draws import fold, to_unit
from streamfeat.schema import PLANNED


class Shown(NamedTuple):
    """The model's inputs of each token. The names are those of the arrays of a batch."""

    item: NDArray[np.int32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    medium: NDArray[np.int32]
    status: NDArray[np.int32]
    segment: NDArray[np.int32]  # -1 on PAD
    time: NDArray[np.int64]
    time_known: NDArray[np.bool_]
    told_time: NDArray[np.int64]
    told_time_known: NDArray[np.bool_]
    rating: NDArray[np.float32]
    rating_known: NDArray[np.bool_]
    completion: NDArray[np.float32]
    completion_known: NDArray[np.bool_]


class Asked(NamedTuple):
    """The targets of each token; all 0 without a target. The names are those of the arrays of a batch."""

    target_item: NDArray[np.int32]  # the item of the item target or of the rating target
    target_rating: NDArray[np.float32]
    weight_item: NDArray[np.float32]
    weight_rating: NDArray[np.float32]


class Chance(NamedTuple):
    """An event of probability `share`: it happens if a draw from `state` is below `share`."""

    state: np.uint64
    share: float


INTS, TIMES, FLOATS, FLAGS = int32[:, ::1], int64[:, ::1], float32[:, ::1], boolean[:, ::1]


def _type_of(kind: type, *fields: Any) -> Any:
    """Numba's type of a NamedTuple."""
    return types.BaseTuple.from_types(fields, kind)


SHOWN = _type_of(Shown, *[INTS] * 6, *[TIMES, FLAGS] * 2, *[FLOATS, FLAGS] * 2)
ASKED = _type_of(Asked, INTS, *[FLOATS] * 3)
_CHANCE = _type_of(Chance, uint64, float64)


@njit(void(int64, SHOWN, FLAGS), cache=True, nogil=True)
def mark_eligible(num_items: int, shown: Shown, out: NDArray[np.bool_]) -> None:
    """out[r, t] = whether the token has an item target."""
    item, status = shown.item, shown.status
    for r in range(out.shape[0]):
        for t in range(out.shape[1]):
            out[r, t] = (item[r, t] < num_items) & (status[r, t] != PLANNED)


@njit(void(INTS, FLAGS), cache=True, nogil=True)
def keep_last(segment: NDArray[np.int32], eligible: NDArray[np.bool_]) -> None:
    """Keeps only those eligible tokens that are the last of their segment."""
    for r in range(segment.shape[0]):
        for t in range(segment.shape[1] - 1):
            eligible[r, t] &= segment[r, t] != segment[r, t + 1]


@njit(void(_CHANCE, SHOWN, FLAGS, FLAGS), cache=True, nogil=True)
def move_ratings(rates: Chance, shown: Shown, eligible: NDArray[np.bool_], out: NDArray[np.bool_]) -> None:
    """Moves the eligible tokens with a rating of a share of the users to `out`. Each user has one draw."""
    user, rating_known = shown.user, shown.rating_known
    for r in range(out.shape[0]):
        for t in range(out.shape[1]):
            has_rating = eligible[r, t] and rating_known[r, t]
            out[r, t] = has_rating and to_unit(fold(rates.state, np.uint64(user[r, t]))) < rates.share
            eligible[r, t] &= not out[r, t]


@njit(void(FLAGS, int64[::1], _CHANCE, SHOWN, ASKED), cache=True, nogil=True)
def ask_next(eligible: NDArray[np.bool_], window: NDArray[np.int64], hides: Chance, shown: Shown, asked: Asked) -> None:
    """Causal objective: the target of a token is the next event of the same segment; the told time is that event's.

    A draw of the segment's first token decides whether all told times of the segment are hidden.
    """
    item, segment, rating, rating_known = shown.item, shown.segment, shown.rating, shown.rating_known
    time, time_known, told_time, told_time_known = shown.time, shown.time_known, shown.told_time, shown.told_time_known
    target_item, target_rating, weight_item, weight_rating = asked
    num_tokens = eligible.shape[1]
    for r in range(eligible.shape[0]):
        state = fold(hides.state, np.uint64(window[r]))
        hidden = False
        for t in range(num_tokens):
            here = segment[r, t]
            if here >= 0 and (t == 0 or here != segment[r, t - 1]):
                hidden = to_unit(fold(state, np.uint64(t))) < hides.share
            after = min(t + 1, num_tokens - 1)
            follows = t + 1 < num_tokens and here >= 0 and segment[r, after] == here
            # Always loaded, so that the choices below compile without branches: 185 us instead of 420.
            next_item, next_rating, next_time = item[r, after], rating[r, after], time[r, after]
            told = follows & time_known[r, after] & (not hidden)
            told_time[r, t] = next_time if told else 0
            told_time_known[r, t] = told
            wants = follows & eligible[r, after]
            wants_rating = wants & rating_known[r, after]
            target_item[r, t] = next_item if wants else 0
            weight_item[r, t] = wants
            target_rating[r, t] = next_rating if wants_rating else np.float32(0.0)
            weight_rating[r, t] = wants_rating


@njit(void(FLAGS, FLAGS, int64[::1], _CHANCE, _CHANCE, int64, int64, SHOWN, ASKED), cache=True, nogil=True)
def mask_disjoint(
    for_item: NDArray[np.bool_],
    for_rating: NDArray[np.bool_],
    window: NDArray[np.int64],
    asks_item: Chance,
    asks_rating: Chance,
    item_mask: int,
    status_mask: int,
    shown: Shown,
    asked: Asked,
) -> None:
    """Mask policy `disjoint`: some of the tokens eligible `for_item` get an item target only, and their item is masked.
    Of the others, some that are eligible `for_rating` get a rating target only, and their item stays. For both, rating,
    status and completion are masked.
    """
    item, status, rating, rating_known = shown.item, shown.status, shown.rating, shown.rating_known
    completion, completion_known = shown.completion, shown.completion_known
    target_item, target_rating, weight_item, weight_rating = asked
    for r in range(for_item.shape[0]):
        item_state = fold(asks_item.state, np.uint64(window[r]))
        rating_state = fold(asks_rating.state, np.uint64(window[r]))
        for t in range(for_item.shape[1]):
            wants = for_item[r, t] & (to_unit(fold(item_state, np.uint64(t))) < asks_item.share)
            has_rating = for_rating[r, t] & rating_known[r, t] & (not wants)
            wants_rating = has_rating & (to_unit(fold(rating_state, np.uint64(t))) < asks_rating.share)
            target_item[r, t] = item[r, t] if wants or wants_rating else 0
            weight_item[r, t] = wants
            target_rating[r, t] = rating[r, t] if wants_rating else np.float32(0.0)
            weight_rating[r, t] = wants_rating
            if wants:
                item[r, t] = item_mask
            if wants or wants_rating:
                status[r, t] = status_mask
                rating[r, t] = 0.0
                rating_known[r, t] = False
                completion[r, t] = 0.0
                completion_known[r, t] = False


@njit(void(FLAGS, int64[::1], _CHANCE, int64, SHOWN, ASKED, FLAGS), cache=True, nogil=True)
def pick_seed(
    eligible: NDArray[np.bool_],
    window: NDArray[np.int64],
    picks: Chance,
    status_mask: int,
    shown: Shown,
    asked: Asked,
    out_picked: NDArray[np.bool_],
) -> None:
    """Mask policy `seed`: picks some of the eligible tokens. They get all targets that they have, and their status and
    completion are masked. The kernels of `disturb` change their other fields.
    """
    item, status, rating, rating_known = shown.item, shown.status, shown.rating, shown.rating_known
    completion, completion_known = shown.completion, shown.completion_known
    target_item, target_rating, weight_item, weight_rating = asked
    for r in range(eligible.shape[0]):
        state = fold(picks.state, np.uint64(window[r]))
        for t in range(eligible.shape[1]):
            wants = eligible[r, t] & (to_unit(fold(state, np.uint64(t))) < picks.share)
            wants_rating = wants & rating_known[r, t]
            out_picked[r, t] = wants
            target_item[r, t] = item[r, t] if wants else 0
            weight_item[r, t] = wants
            target_rating[r, t] = rating[r, t] if wants_rating else np.float32(0.0)
            weight_rating[r, t] = wants_rating
            if wants:
                status[r, t] = status_mask
                completion[r, t] = 0.0
                completion_known[r, t] = False


@njit(void(INTS, INTS, int64, int64[::1], FLOATS), cache=True, nogil=True)
def share_weights(
    medium: NDArray[np.int32],
    segment: NDArray[np.int32],
    shift: int,
    counts: NDArray[np.int64],
    weight: NDArray[np.float32],
) -> None:
    """Divides each weight of 1 by the number of targets of its segment and medium, so that these weights add up to 1.

    The target of token t has the medium of token t + shift. The shift is 1 under the causal objective, otherwise 0.
    `counts` (media,) is scratch memory.
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
