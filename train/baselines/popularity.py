"""Baselines that rank items by how often they are watched: in all of training, in the last 30 days, or with counts
that halve with time."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.decayed import decayed_counts, decayed_sums
from train.terms.watched import Batches, Watched

RECENT_DAYS = 30
HALF_LIVES = (1, 3, 7, 30)  # days

_DAY = 86_400
_MAX_TABLE = 2**28  # numbers in the table of recent counts: 1 GiB


@dataclass(frozen=True)
class Popularity:
    """Score: the number of training targets of the item."""

    medium_offsets: Sequence[int]
    counts: NDArray[np.int64]  # (V,)

    name = family = "popularity"
    uses_time = False

    @property
    def settings(self) -> Mapping[str, float | str]:
        """None."""
        return {}

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        low, high = self.medium_offsets[medium : medium + 2]
        return np.tile(self.counts[low:high].astype(np.float64), (past.num_users, 1))


class RecentPopularity:
    """Score: number of training targets of the item in the 30 days before the target's day, or, its time being
    hidden, in the last 30 days of training. Equal ones go by popularity.

    Days are whole and count from the first training event: the target's own day is left out, so nothing that lies
    after the target counts.
    """

    name = "popularity_30_days"
    family = "popularity"
    uses_time = True

    def __init__(
        self,
        batches: Batches,
        medium_offsets: Sequence[int],
        time_min: int,
        time_max: int,
        *,
        max_table: int = _MAX_TABLE,
    ) -> None:
        """Counts the training events. No time lies outside `time_min` … `time_max`."""
        self._medium_offsets = medium_offsets
        self._time_min = time_min
        num_days = (time_max - time_min) // _DAY + 1
        # Coarser than days only where a table of days would not fit.
        bucket_days = math.ceil(num_days * medium_offsets[-1] / max_table)
        self._bucket_seconds = bucket_days * _DAY
        self._num_buckets = math.ceil(num_days / bucket_days)
        self._recent_buckets = math.ceil(RECENT_DAYS / bucket_days)
        before = np.zeros((self._num_buckets + 1, medium_offsets[-1]), np.int32)
        for batch in batches():
            np.add.at(before, (self._buckets(batch.time) + 1, batch.item), 1)
        np.cumsum(before, axis=0, out=before)
        self._before = before  # row b: what was watched before bucket b
        self._tie_break = before[-1] / (before[-1].sum(dtype=np.int64) + 1)  # below 1

    @property
    def settings(self) -> Mapping[str, float | str]:
        """The length of the window."""
        return {"window_days": RECENT_DAYS}

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


@dataclass(frozen=True)
class EventTimes:
    """The times of all training targets by item, 8 bytes each: those of item i are time[offsets[i]:offsets[i + 1]]."""

    offsets: NDArray[np.int64]  # (V + 1,)
    time: NDArray[np.int64]  # (events,) ascending within an item

    @classmethod
    def of(cls, batches: Batches, num_items: int) -> "EventTimes":
        """Reads the training events twice."""
        offsets = np.append(0, np.cumsum(count_items(batches, num_items)))
        time, filled = np.empty(offsets[-1], np.int64), offsets[:-1].copy()
        for batch in batches():
            order = np.argsort(batch.item, kind="stable")
            items, starts, counts = np.unique(batch.item[order], return_index=True, return_counts=True)
            place = np.repeat(filled[items] - starts, counts) + np.arange(len(order))
            time[place] = batch.time[order]
            filled[items] += counts
        for start, stop in itertools.pairwise(offsets):
            time[start:stop].sort()
        return cls(offsets, time)


class DecayedPopularity:
    """Score: Σ 2^(-age / half-life) over the training targets of the item before the target's time, or, its time
    being hidden, before the end of training. Equal ones go by the number of these targets.

    An event at the target's own second does not count.
    """

    family = "popularity"
    uses_time = True

    def __init__(self, events: EventTimes, medium_offsets: Sequence[int], half_life_days: int) -> None:
        """Adds 4 bytes for each training event to those of `events`, which several half-lives can share."""
        self.name = f"popularity_half_life_{half_life_days}d"
        self._medium_offsets = medium_offsets
        self._days = half_life_days
        self._end = int(events.time.max()) + 1 if len(events.time) else 0
        self._events = events
        self._sums = np.empty(len(events.time), np.float32)
        decayed_sums(events.offsets, events.time, float(half_life_days * _DAY), self._sums)

    @property
    def settings(self) -> Mapping[str, float | str]:
        """The half-life."""
        return {"half_life_days": self._days}

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        low, high = self._medium_offsets[medium : medium + 2]
        asked, user = np.unique(
            np.full(past.num_users, self._end) if times is None else times.astype(np.int64), return_inverse=True
        )
        counts_VQ = np.empty((high - low, len(asked)))
        offsets, half_life = self._events.offsets[low : high + 1], float(self._days * _DAY)
        decayed_counts(offsets, self._events.time, self._sums, half_life, asked, counts_VQ)
        return np.ascontiguousarray(counts_VQ.T)[user]


def count_items(batches: Batches, num_items: int) -> NDArray[np.int64]:
    """(V,): training targets of each item."""
    counts = np.zeros(num_items, np.int64)
    for batch in batches():
        counts += np.bincount(batch.item, minlength=num_items)
    return counts
