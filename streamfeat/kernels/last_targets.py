"""The objectives where only the last event of each segment is asked for: validation of `last:2`.

Arrays are as in `objectives`. The last event of a segment has an item target there; one that has none, which only
other windows have, is not asked for. CLS, alone, is none.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamfeat.kernels.draws import fold, to_unit
from streamfeat.schema import PLANNED


@njit("boolean(int32[:, ::1], int64, int64)", cache=True, nogil=True, inline="always")
def ends_segment(segment: NDArray[np.int32], r: int, t: int) -> bool:
    """Whether token t of window r is the last one of its segment."""
    if segment[r, t] < 0:
        return False
    return bool(t + 1 == segment.shape[1] or segment[r, t + 1] != segment[r, t])


@njit("void(int32[:, ::1], int32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1])", cache=True, nogil=True)
def keep_last(
    segment: NDArray[np.int32],
    target_item: NDArray[np.int32],
    target_rating: NDArray[np.float32],
    weight_item: NDArray[np.float32],
    weight_rating: NDArray[np.float32],
) -> None:
    """Causal: of the targets that `ask_next` gave, leave each segment's last one, that of the token before its last."""
    for r in range(segment.shape[0]):
        for t in range(segment.shape[1]):
            if t + 1 < segment.shape[1] and segment[r, t + 1] == segment[r, t] and ends_segment(segment, r, t + 1):
                continue
            target_item[r, t] = 0
            target_rating[r, t] = 0.0
            weight_item[r, t] = 0.0
            weight_rating[r, t] = 0.0


@njit(
    "void(int32, int32, int32, uint64, float64, int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1],"
    "float32[:, ::1], boolean[:, ::1], float32[:, ::1], boolean[:, ::1], int32[:, ::1], float32[:, ::1],"
    "float32[:, ::1], float32[:, ::1])",
    cache=True,
    nogil=True,
)
def mask_last_disjoint(
    num_items: int,
    item_mask: int,
    status_mask: int,
    rating_state: np.uint64,
    rating_share: float,
    segment: NDArray[np.int32],
    user: NDArray[np.int32],
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
    """Policy `disjoint`: the last event is asked for the rating with probability `rating_share`, by a draw of its user,
    where it has one, else for the item. It loses rating, status and completion, and its item where that is asked for.
    """
    for r in range(item.shape[0]):
        for t in range(item.shape[1]):
            wants = ends_segment(segment, r, t) and item[r, t] < num_items and status[r, t] != PLANNED
            rates = wants and rating_known[r, t] and to_unit(fold(rating_state, np.uint64(user[r, t]))) < rating_share
            out_target_item[r, t] = item[r, t] if wants else 0
            out_weight_item[r, t] = 1.0 if wants and not rates else 0.0
            out_target_rating[r, t] = rating[r, t] if rates else np.float32(0.0)
            out_weight_rating[r, t] = 1.0 if rates else 0.0
            if wants:
                item[r, t] = item[r, t] if rates else item_mask
                status[r, t] = status_mask
                rating[r, t] = 0.0
                rating_known[r, t] = False
                completion[r, t] = 0.0
                completion_known[r, t] = False


@njit(
    "void(int32, int32, int32[:, ::1], int32[:, ::1], float32[:, ::1], boolean[:, ::1], int32[:, ::1],"
    "float32[:, ::1], boolean[:, ::1], boolean[:, ::1], int32[:, ::1], float32[:, ::1], float32[:, ::1],"
    "float32[:, ::1])",
    cache=True,
    nogil=True,
)
def pick_last_seed(
    num_items: int,
    status_mask: int,
    segment: NDArray[np.int32],
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
    """Policy `seed`: the last event is picked, as `pick_seed` picks."""
    for r in range(item.shape[0]):
        for t in range(item.shape[1]):
            wants = ends_segment(segment, r, t) and item[r, t] < num_items and status[r, t] != PLANNED
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
