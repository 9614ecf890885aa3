"""What the ratings of a history say beside the means of the items: residuals, and figures of them.

The deviation of a rating is (rating - mean) / std of its medium. Its residual is the deviation minus the item's mean
deviation over the training ratings of other users, damped by 5 ratings of deviation 0. Arrays are (windows, tokens) as
in a batch, C-contiguous.

The figures, from the residuals r of k rated events (docs/design.md says what each was worth):

    0   Σ r / (k + 3)
    1   ln(1 + k) - 3
    2   Σ w r / (Σ w + 1.5), w = 2^(-age / 3), age = number of rated events between the rated and the asked one
    3   the same with w = 2^(-age / 12)
    4   Σ r / (k + 3) over the session of the asked event, which gaps of at most 300 s link; 0 without a rating in it
    5   (Σ r² + 3) / (k + 3) - 1

An event whose time is hidden belongs to the session of the event before it.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import boolean, float32, float64, njit, types, void
from numpy.typing import NDArray

from streamfeat.kernels.objectives import ASKED, FLAGS, FLOATS, SHOWN, Asked, Shown

ITEM_DAMPING = 5.0
NUM_FIGURES = 6

_DAMPING = 3.0
_RECENT_DAMPING = 1.5
_KEPT_OF_3, _KEPT_OF_12 = 2.0 ** (-1 / 3), 2.0 ** (-1 / 12)  # of a weight, from one rated event to the next
_LARGEST_GAP = 300  # seconds


class RatingTable(NamedTuple):
    """Facts of the training ratings of V items, U users and M media."""

    sum_V: NDArray[np.float32]  # Σ (deviation - bias of its user)
    num_V: NDArray[np.float32]  # number of ratings
    bias_U: NDArray[np.float32]  # damped mean of (deviation - mean of its item); 0 without ratings
    mean_M: NDArray[np.float32]  # of ratings
    std_M: NDArray[np.float32]  # 1 if all ratings of the medium are equal


_TABLE = types.BaseTuple.from_types([float32[::1]] * 5, RatingTable)


@njit(void(_TABLE, boolean, SHOWN, ASKED, FLAGS, FLAGS, float64[::1], float64[::1], FLOATS), cache=True, nogil=True)
def residuals(
    table: RatingTable,
    causal: bool,
    shown: Shown,
    asked: Asked,
    in_view: NDArray[np.bool_],
    in_table: NDArray[np.bool_],
    own_sum: NDArray[np.float64],
    own_num: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """out[r, t] = the residual of a token that is `in_view` and shows its rating; 0 for other tokens.

    `in_table` marks the tokens whose rating, if there is one, is in the table. All ratings of the token's item in its
    segment are taken out of the item's sum, targets too, so that no own rating reaches the item's mean. `own_sum` and
    `own_num` (V,) are scratch memory: all 0 before and after.
    """
    sum_V, num_V, bias_U, mean_M, std_M = table
    item, user, medium, segment = shown.item, shown.user, shown.medium, shown.segment
    rating, rating_known = shown.rating, shown.rating_known
    target_item, target_rating, weight_rating = asked.target_item, asked.target_rating, asked.weight_rating
    for r in range(out.shape[0]):
        start = 0
        while start < out.shape[1]:
            stop = start
            while stop < out.shape[1] and segment[r, stop] == segment[r, start]:
                m = medium[r, stop]
                out[r, stop] = 0.0
                if in_view[r, stop] and rating_known[r, stop]:
                    out[r, stop] = (rating[r, stop] - mean_M[m]) / std_M[m]
                    if in_table[r, stop]:
                        own_sum[item[r, stop]] += out[r, stop] - bias_U[user[r, stop]]
                        own_num[item[r, stop]] += 1.0
                elif (not causal) and weight_rating[r, stop] > 0 and in_table[r, stop]:
                    own = (target_rating[r, stop] - mean_M[m]) / std_M[m]
                    own_sum[target_item[r, stop]] += own - bias_U[user[r, stop]]
                    own_num[target_item[r, stop]] += 1.0
                stop += 1
            for t in range(start, stop):
                if in_view[r, t] and rating_known[r, t]:
                    i = item[r, t]
                    others = max(num_V[i] - own_num[i], 0.0)  # less than 0 only where arrays are not of the dataset
                    out[r, t] -= (sum_V[i] - own_sum[i]) / (others + ITEM_DAMPING)
            for t in range(start, stop):
                if in_view[r, t]:
                    own_sum[item[r, t]], own_num[item[r, t]] = 0.0, 0.0
                elif (not causal) and weight_rating[r, t] > 0:
                    own_sum[target_item[r, t]], own_num[target_item[r, t]] = 0.0, 0.0
            start = stop


@njit(void(SHOWN, FLOATS, FLAGS, float32[:, :, ::1]), cache=True, nogil=True)
def figures_before(
    shown: Shown,
    residual: NDArray[np.float32],
    rated: NDArray[np.bool_],
    out: NDArray[np.float32],
) -> None:
    """Causal objective: out[r, t] = the figures for the event after token t, from its segment up to and including t.
    `rated` marks the events that count; `residual` holds theirs."""
    segment, time, time_known = shown.segment, shown.time, shown.time_known
    told_time, told_time_known = shown.told_time, shown.told_time_known
    for r in range(segment.shape[0]):
        k, total, squares = 0, 0.0, 0.0
        fast, fast_weight, slow, slow_weight = 0.0, 0.0, 0.0, 0.0
        session, session_k, last, has_last = 0.0, 0, 0, False
        for t in range(segment.shape[1]):
            if t == 0 or segment[r, t] != segment[r, t - 1]:
                k, total, squares = 0, 0.0, 0.0
                fast, fast_weight, slow, slow_weight = 0.0, 0.0, 0.0, 0.0
                session, session_k, has_last = 0.0, 0, False
            if time_known[r, t]:
                if has_last and time[r, t] - last > _LARGEST_GAP:
                    session, session_k = 0.0, 0
                last, has_last = time[r, t], True
            if rated[r, t]:
                x = residual[r, t]
                k, total, squares = k + 1, total + x, squares + x * x
                fast, fast_weight = fast * _KEPT_OF_3 + x, fast_weight * _KEPT_OF_3 + 1
                slow, slow_weight = slow * _KEPT_OF_12 + x, slow_weight * _KEPT_OF_12 + 1
                session, session_k = session + x, session_k + 1
            linked = (not told_time_known[r, t]) or (not has_last) or told_time[r, t] - last <= _LARGEST_GAP
            out[r, t, 0] = total / (k + _DAMPING)
            out[r, t, 1] = math.log(1.0 + k) - 3.0
            out[r, t, 2] = fast / (fast_weight + _RECENT_DAMPING)
            out[r, t, 3] = slow / (slow_weight + _RECENT_DAMPING)
            out[r, t, 4] = session / (session_k + _DAMPING) if linked else 0.0
            out[r, t, 5] = (squares + _DAMPING) / (k + _DAMPING) - 1.0


@njit(void(SHOWN, FLOATS, FLAGS, float32[:, :, ::1]), cache=True, nogil=True)
def figures_around(
    shown: Shown,
    residual: NDArray[np.float32],
    rated: NDArray[np.bool_],
    out: NDArray[np.float32],
) -> None:
    """Masked objective: out[r, t] = the figures for the event of token t, which is not rated, from its whole segment.
    The age of a rated event is the number of rated events between it and token t, on either side."""
    segment, time, time_known = shown.segment, shown.time, shown.time_known
    for r in range(segment.shape[0]):
        start = 0
        while start < segment.shape[1]:
            stop, k, total, squares = start, 0, 0.0, 0.0
            fast, fast_weight, slow, slow_weight = 0.0, 0.0, 0.0, 0.0
            while stop < segment.shape[1] and segment[r, stop] == segment[r, start]:
                out[r, stop, 2], out[r, stop, 3] = fast, slow
                out[r, stop, 4], out[r, stop, 5] = fast_weight, slow_weight
                if rated[r, stop]:
                    x = residual[r, stop]
                    k, total, squares = k + 1, total + x, squares + x * x
                    fast, fast_weight = fast * _KEPT_OF_3 + x, fast_weight * _KEPT_OF_3 + 1
                    slow, slow_weight = slow * _KEPT_OF_12 + x, slow_weight * _KEPT_OF_12 + 1
                stop += 1
            fast, fast_weight, slow, slow_weight = 0.0, 0.0, 0.0, 0.0
            for t in range(stop - 1, start - 1, -1):
                out[r, t, 0] = total / (k + _DAMPING)
                out[r, t, 1] = math.log(1.0 + k) - 3.0
                out[r, t, 2] = (out[r, t, 2] + fast) / (out[r, t, 4] + fast_weight + _RECENT_DAMPING)
                out[r, t, 3] = (out[r, t, 3] + slow) / (out[r, t, 5] + slow_weight + _RECENT_DAMPING)
                out[r, t, 5] = (squares + _DAMPING) / (k + _DAMPING) - 1.0
                if rated[r, t]:
                    x = residual[r, t]
                    fast, fast_weight = fast * _KEPT_OF_3 + x, fast_weight * _KEPT_OF_3 + 1
                    slow, slow_weight = slow * _KEPT_OF_12 + x, slow_weight * _KEPT_OF_12 + 1
            first = start
            while first < stop:
                end, last, has_last, session, session_k = first, 0, False, 0.0, 0
                while end < stop:
                    if time_known[r, end]:
                        if has_last and time[r, end] - last > _LARGEST_GAP:
                            break
                        last, has_last = time[r, end], True
                    if rated[r, end]:
                        session, session_k = session + residual[r, end], session_k + 1
                    end += 1
                for t in range(first, end):
                    out[r, t, 4] = session / (session_k + _DAMPING)
                first = end
            start = stop
