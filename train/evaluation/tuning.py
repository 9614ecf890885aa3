"""Validation cases, on which the settings of the baselines and the best baseline are chosen. No test event is read.

Axes: C cases, R cases with a rating.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamfeat.store.histories import HeldOut, HistoryReader
from train.baselines.all import Ranker, Rater
from train.baselines.choice import Measure
from train.evaluation.cases import Cases, read_validation_cases
from train.evaluation.ranking import figure_values, target_ranks, without_seen

COMPARED = 10  # the k of ndcg@k, by which systems are compared

MAX_USERS = 4096

_SEED = 0  # of the draw of users
_MIN_USERS = 512
_MAX_SCORES = 2**27  # scores of all cases for one setting, as long as `_MIN_USERS` users remain
_MAX_EVENTS = 2**22  # events of all cases in memory
_CACHED_SCORES = 2**19  # scores of a batch of users: 4 MiB, which stay in a processor's cache


@dataclass(frozen=True)
class Validation:
    """The validation cases of at most 4,096 users, the same for every call on a dataset."""

    medium_offsets: tuple[int, ...]
    remove_seen: bool  # whether seen items are left out of the rankings
    parts: tuple[tuple[int, Cases], ...]  # the medium of the targets, and the cases; their `histories` are empty

    @classmethod
    def read(
        cls,
        reader: HistoryReader,
        held_out: HeldOut,
        medium_offsets: tuple[int, ...],
        *,
        remove_seen: bool,
        max_users: int = MAX_USERS,
    ) -> "Validation":
        """Draws users with a fixed seed. Fewer where the catalogue is large or the histories are long."""
        users = np.flatnonzero(held_out.validation_events > 0)
        most = min(max_users, max(_MIN_USERS, _MAX_SCORES // medium_offsets[-1]))
        if len(users) > most:
            users = np.sort(np.random.default_rng(_SEED).choice(users, most, replace=False))
        batch_users = max(16, _CACHED_SCORES // medium_offsets[-1])
        parts, num_events = [], 0
        for cases in read_validation_cases(reader, held_out, users, batch_users):
            for medium, bounds in enumerate(itertools.pairwise(medium_offsets)):
                of_medium = cases.of_items(*bounds)
                if len(of_medium.item):
                    parts.append((medium, replace(of_medium, histories=[])))
                    num_events += len(of_medium.past.item)
            if num_events > _MAX_EVENTS:
                break
        return cls(medium_offsets, remove_seen, tuple(parts))

    @property
    def medium(self) -> NDArray[np.int64]:
        """(C,): the medium of each target."""
        return np.concatenate([np.empty(0, np.int64), *(np.full(len(of.item), medium) for medium, of in self.parts)])

    @property
    def is_rated(self) -> NDArray[np.bool_]:
        """(C,): whether the target has a rating."""
        ratings: NDArray[np.float64] = np.concatenate([np.empty(0), *(cases.rating for _, cases in self.parts)])
        return ~np.isnan(ratings)

    def gains(self, ranker: Ranker, *, told: bool) -> NDArray[np.float64]:
        """(C,): each case's ndcg@10. `told`: with the target's time."""
        return np.concatenate(list(self._gains(ranker, told)) or [np.empty(0)])

    def squares(self, rater: Rater) -> NDArray[np.float64]:
        """(R,): squared errors of the predicted ratings."""
        errors = [np.empty(0)]
        for _, cases in self.parts:
            rows = cases.rated_rows()
            errors.append(rater.predict(cases.past.take(rows), cases.item[rows]) - cases.rating[rows])
        return np.concatenate(errors) ** 2

    def ranking_measure(self) -> Measure[Ranker]:
        """The mean ndcg@10 with hidden times. None: there is no case."""
        return (lambda ranker: float(self.gains(ranker, told=False).mean())) if self.parts else None

    def rating_measure(self) -> Measure[Rater]:
        """The negative mean squared error. None: there is no case with a rating."""
        return (lambda rater: -float(self.squares(rater).mean())) if self.is_rated.any() else None

    def _gains(self, ranker: Ranker, told: bool) -> Iterator[NDArray[np.float64]]:
        for medium, cases in self.parts:
            low = self.medium_offsets[medium]
            target_N = cases.item - low
            scores_NV: NDArray[np.floating] = ranker.scores(cases.past, cases.time if told else None, medium)
            if self.remove_seen:
                left_NV = without_seen(scores_NV, cases.past, low)
                np.put_along_axis(left_NV, target_N[:, None], np.take_along_axis(scores_NV, target_N[:, None], 1), 1)
                scores_NV = left_NV
            yield figure_values(target_ranks(scores_NV, target_N), (COMPARED,))[:, 1]
