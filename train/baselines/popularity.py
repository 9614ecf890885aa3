"""Baselines that rank items by how often they are watched: in all of training, or in the last 30 days."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.terms.watched import Batches, Watched

RECENT_DAYS = 30

_DAY = 86_400
_MAX_TABLE = 2**28  # numbers in the table of recent counts: 1 GiB


class Popularity:
    """Score: the number of training targets of the item."""

    name = "popularity"
    uses_time = False

    def __init__(self, medium_offsets: Sequence[int]) -> None:
        self._medium_offsets = medium_offsets

    def fit(self, batches: Batches) -> None:
        """As `Ranker.fit`."""
        self._counts = count_items(batches, self._medium_offsets[-1])

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        low, high = self._medium_offsets[medium : medium + 2]
        return np.tile(self._counts[low:high].astype(np.float64), (past.num_users, 1))


class RecentPopularity:
    """Score: number of training targets of the item in the 30 days before the target's day, or, its time being
    hidden, in the last 30 days of training. Equal ones go by popularity.

    Days are whole and count from the first training event: the target's own day is left out, so nothing that lies
    after the target counts.
    """

    name = "popularity_30_days"
    uses_time = True

    def __init__(
        self, medium_offsets: Sequence[int], time_min: int, time_max: int, *, max_table: int = _MAX_TABLE
    ) -> None:
        self._medium_offsets = medium_offsets
        self._time_min = time_min
        num_days = (time_max - time_min) // _DAY + 1
        # Coarser than days only where a table of days would not fit.
        bucket_days = math.ceil(num_days * medium_offsets[-1] / max_table)
        self._bucket_seconds = bucket_days * _DAY
        self._num_buckets = math.ceil(num_days / bucket_days)
        self._recent_buckets = math.ceil(RECENT_DAYS / bucket_days)

    def fit(self, batches: Batches) -> None:
        """As `Ranker.fit`."""
        before = np.zeros((self._num_buckets + 1, self._medium_offsets[-1]), np.int32)
        for batch in batches():
            np.add.at(before, (self._buckets(batch.time) + 1, batch.item), 1)
        np.cumsum(before, axis=0, out=before)
        self._before = before  # row b: what was watched before bucket b
        self._tie_break = before[-1] / (before[-1].sum(dtype=np.int64) + 1)  # below 1

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        low, high = self._medium_offsets[medium : medium + 2]
        stop = np.full(past.num_users, self._num_buckets) if times is None else self._buckets(times)
        stops = np.clip(stop, 0, self._num_buckets)
        starts = np.clip(stop - self._recent_buckets, 0, self._num_buckets)
        recent = self._before[stops, low:high] - self._before[starts, low:high]
        scores: NDArray[np.float64] = recent + self._tie_break[low:high]
        return scores

    def _buckets(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        buckets: NDArray[np.int64] = (time - self._time_min) // self._bucket_seconds
        return buckets


def count_items(batches: Batches, num_items: int) -> NDArray[np.int64]:
    """(V,): training targets of each item."""
    counts = np.zeros(num_items, np.int64)
    for batch in batches():
        counts += np.bincount(batch.item, minlength=num_items)
    return counts
