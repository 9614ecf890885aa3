"""The rank of a target among all items of its medium, and the figures that follow from the rank.

Axes: N users with one target each, V items of the medium, K cut-offs, F figures.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.terms.watched import Watched

TIE_RULE = "the mean rank of the items with an equal score"


def target_ranks(scores_NV: NDArray[np.floating], target_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) float64: 1 + the number of items with a higher score + half the number of other items with an equal score.

    The half is the average of breaking ties at random. Scores are -inf for items that are left out, and never NaN.
    `target_N` holds ids inside the medium.
    """
    assert not np.isnan(scores_NV).any()
    score_N1 = np.take_along_axis(scores_NV, target_N[:, None], 1)
    better = np.count_nonzero(scores_NV > score_N1, axis=1)
    equal = np.count_nonzero(scores_NV == score_N1, axis=1) - 1
    ranks: NDArray[np.float64] = 1.0 + better + equal / 2
    return ranks


def without_seen(scores_NV: NDArray[np.floating], past: Watched, low: int) -> NDArray[np.floating]:
    """A copy with -inf for the items in each user's past. `low` is the first item of the medium."""
    left_NV = scores_NV.copy()
    inside = past.item - low
    of_medium = (inside >= 0) & (inside < scores_NV.shape[1])
    left_NV[past.user()[of_medium], inside[of_medium]] = -np.inf
    return left_NV


def figure_names(ks: Sequence[int]) -> tuple[str, ...]:
    """`hr@k` for each of `ks`, then `ndcg@k` for each of `ks`, then `mrr`."""
    return (*(f"hr@{k}" for k in ks), *(f"ndcg@{k}" for k in ks), "mrr")


def figure_values(rank_N: NDArray[np.float64], ks: Sequence[int]) -> NDArray[np.float64]:
    """(N, F): each user's figures, in the order of `figure_names`. The report shows their means over users.

    For rank ≤ k, hr@k is 1 and ndcg@k is 1 / log2(1 + rank); for other ranks both are 0. mrr is 1 / rank. There is one
    target, so the best possible ndcg@k is 1.
    """
    hit_NK = rank_N[:, None] <= np.asarray(ks)
    gain_N1 = 1.0 / np.log2(1.0 + rank_N[:, None])
    return np.concatenate((hit_NK, hit_NK * gain_N1, 1.0 / rank_N[:, None]), axis=1)


class Coverage:
    """Records which items of a medium were in any user's first k."""

    def __init__(self, num_items: int, ks: Sequence[int]) -> None:
        self.ks = tuple(ks)
        self.covered_KV = np.zeros((len(self.ks), num_items), np.bool_)

    def add(self, scores_NV: NDArray[np.floating]) -> None:
        """Adds the first k items of each row. Items with -inf are left out; equal scores are ordered by id."""
        first = first_items(scores_NV, min(max(self.ks), scores_NV.shape[1]))
        shown = np.take_along_axis(scores_NV, first, 1) > -np.inf
        for index, k in enumerate(self.ks):
            self.covered_KV[index, first[:, :k][shown[:, :k]]] = True


def first_items(scores_NV: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """(N, k): the k items of each row with the highest scores, best first; equal scores by id. k is at most V."""
    # Select the k items before sorting: V is large and k is small.
    threshold_N1 = np.partition(scores_NV, scores_NV.shape[1] - k, axis=1)[:, -k, None]
    better_NV = scores_NV > threshold_N1
    equal_NV = scores_NV == threshold_N1
    room_N1 = k - np.count_nonzero(better_NV, axis=1)[:, None]
    chosen_NV = better_NV | (equal_NV & (np.cumsum(equal_NV, axis=1) <= room_N1))
    items = np.nonzero(chosen_NV)[1].reshape(len(scores_NV), k)
    order = np.argsort(-np.take_along_axis(scores_NV, items, 1), axis=1, kind="stable")
    return np.take_along_axis(items, order, 1)
