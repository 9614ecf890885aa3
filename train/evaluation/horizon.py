"""Figures of lists with several targets a user: how high is ranked what a user watches in the days after a cut in time.

Axes: N users, V items of the medium, P targets of all users, K cut-offs, F figures.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamfeat.errors import ConfigError
from streamfeat.progress import Progress
from streamfeat.store.histories import HistoryReader
from streamfeat.store.manifest import Manifest
from train.baselines.all import Ranker
from train.evaluation.bootstrap import bootstrap_means, with_intervals
from train.evaluation.figures import ALL_MEDIA, MODEL, Protocol, RankingLine, Time
from train.evaluation.horizon_cases import HorizonCases, read_horizon_cases
from train.evaluation.ranking import Coverage, target_ranks, without_seen
from train.inference.scorer import Scorer

_DEFAULT_DAYS = 14.0
_MOST_DAYS = 36_500
_DAY = 86_400
_SEEN: tuple[Literal["removed", "kept"], ...] = ("removed", "kept")
_Asked = tuple[Time, NDArray[np.int64] | None]  # whether the time is given; the times (n,), if given
_Key = tuple[str, Time, Literal["removed", "kept"]]  # system, whether it knows the time, what becomes of seen items


@dataclass(frozen=True)
class Horizon:
    """The targets of a split by time: from the second cut on, for some days. Times are seconds since time_origin."""

    days: float
    start: int

    @classmethod
    def of(cls, manifest: Manifest, days: float | None) -> "Horizon | None":
        """That of the dataset, 14 days long without `days`; None without a split by time.

        Raises ConfigError if `days` are out of range, or given without a split by time.
        """
        if days is not None and not 0 < days <= _MOST_DAYS:
            raise ConfigError(f"horizon_days: must be above 0, at most {_MOST_DAYS:,}; got {days:g}")
        if manifest.time_split is not None:
            start = manifest.time_split.test_start - manifest.data_schema.time_origin
            return cls(_DEFAULT_DAYS if days is None else days, start)
        if days is not None:
            raise ConfigError(
                f"horizon_days: the dataset was split by {manifest.config.split}, so nothing lies after a cut in time; "
                "leave it out, or build with --split time:0.1"
            )
        return None

    @property
    def stop(self) -> int:
        """The first second after it."""
        return self.start + round(self.days * _DAY)


@dataclass
class HorizonOutcome:
    """The figures of all systems so far, one row for each user and medium. Every system gets the same cases."""

    manifest: Manifest
    horizon: Horizon
    item_targets: NDArray[np.int64]  # (items,): training events that target each item
    ks: tuple[int, ...]
    user: list[NDArray[np.int64]] = field(default_factory=list)
    medium: list[NDArray[np.int64]] = field(default_factory=list)
    targets: list[NDArray[np.int64]] = field(default_factory=list)  # of each row
    unseen: list[NDArray[np.int64]] = field(default_factory=list)  # of these, without a training event
    figures: dict[_Key, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
    coverage: dict[_Key, list[Coverage]] = field(default_factory=dict)

    def steps(
        self, reader: HistoryReader, scorer: Scorer, rankers: Sequence[Ranker], batch_users: int
    ) -> Iterator[Progress]:
        """Adds the lists for all users of the dataset, at most `batch_users` at a time, and yields progress."""
        num_users, offsets = self.manifest.num_users, self.manifest.data_schema.medium_offsets
        for cases in read_horizon_cases(reader, num_users, self.horizon.start, self.horizon.stop, batch_users):
            for medium, (low, high) in enumerate(itertools.pairwise(offsets)):
                of_medium = cases.of_items(low, high)
                if len(of_medium.user):
                    self.add(scorer, rankers, of_medium, medium)
            yield Progress("horizon", int(cases.user[-1]) + 1, num_users, "users")
        yield Progress("horizon", num_users, num_users, "users")

    def add(self, scorer: Scorer, rankers: Sequence[Ranker], cases: HorizonCases, medium: int) -> None:
        """Adds the lists of the model and of every baseline, for cases whose targets are of `medium`.

        The given time is the cut: nobody knows at the cut when a user comes back.
        """
        num = len(cases.user)
        self.user.append(cases.user)
        self.medium.append(np.full(num, medium))
        self.targets.append(np.bincount(cases.row, minlength=num))
        self.unseen.append(np.bincount(cases.row[self.item_targets[cases.item] == 0], minlength=num))
        times = np.full(num, self.horizon.start)
        told: list[_Asked] = [("given", times), ("hidden", None)]
        unasked: list[_Asked] = [("not used", None)]
        for time, of in told:
            asked = [None] * num if of is None else of.tolist()
            states = scorer.states(cases.histories, asked, medium)
            log_probs = scorer.log_probs(states, medium, cases.histories, asked, exclude_seen=False).cpu().numpy()
            self._add_scores(MODEL, time, cases, medium, log_probs)
        for ranker in rankers:
            for time, of in told if ranker.uses_time else unasked:
                self._add_scores(ranker.name, time, cases, medium, ranker.scores(cases.past, of, medium))

    def _add_scores(
        self, system: str, time: Time, cases: HorizonCases, medium: int, scores_NV: NDArray[np.floating]
    ) -> None:
        low = self.manifest.data_schema.medium_offsets[medium]
        item_P = cases.item - low
        for seen in _SEEN:
            key: _Key = (system, time, seen)
            shown_NV = without_seen(scores_NV, cases.past, low) if seen == "removed" else scores_NV.copy()
            if key not in self.coverage:
                self.coverage[key] = [Coverage(scale.items, self.ks) for scale in self.manifest.scales]
            self.coverage[key][medium].add(shown_NV)
            # A target that was seen before keeps its score, as where there is one target.
            shown_NV[cases.row, item_P] = scores_NV[cases.row, item_P]
            self.figures[key].append(several_figures(several_ranks(shown_NV, cases.row, item_P), cases.row, self.ks))

    def lines(self, protocol: Protocol) -> Iterator[RankingLine]:
        """The lines of all systems: over all media, and also for each medium if there are several.

        `protocol` is that of the next event. A user's figures over all media are the mean of those of its media.
        """
        if not self.user:
            return
        user_C, medium_C = np.concatenate(self.user), np.concatenate(self.medium)
        media = self.manifest.data_schema.media
        populations = [(ALL_MEDIA, np.ones(len(user_C), np.bool_))]
        populations += [(name, medium_C == m) for m, name in enumerate(media) if len(media) > 1 and m in medium_C]
        for name, chosen_C in populations:
            users, place_C = np.unique(user_C[chosen_C], return_inverse=True)
            sizes = {scale.medium: scale.items for scale in self.manifest.scales if name in (ALL_MEDIA, scale.medium)}
            for key, parts in self.figures.items():
                system, time, seen = key
                values_CF = np.concatenate(parts)[chosen_C]
                values_NF = np.zeros((len(users), values_CF.shape[1]))
                np.add.at(values_NF, place_C, values_CF)
                values_NF /= np.bincount(place_C)[:, None]
                resampled = bootstrap_means(values_NF, protocol.resamples, protocol.seed)
                yield RankingLine(
                    replace(
                        protocol,
                        target=f"every item of the {self.horizon.days:g} days from the cut on",
                        horizon_days=self.horizon.days,
                        medium=name,
                        catalogue=sizes,
                        users=len(users),
                        users_without_target=self.manifest.num_users - len(np.unique(user_C)),
                        targets=int(np.concatenate(self.targets)[chosen_C].sum()),
                        unseen_targets=int(np.concatenate(self.unseen)[chosen_C].sum()),
                        tied_share=0.0,
                        seen=seen,
                        time=time,
                    ),
                    system,
                    dict(zip(several_names(self.ks), with_intervals(values_NF.mean(0), resampled), strict=True)),
                    self._coverage(key, name),
                )

    def _coverage(self, key: _Key, name: str) -> dict[str, float]:
        chosen = [
            coverage.covered_KV
            for coverage, medium in zip(self.coverage[key], self.manifest.data_schema.media, strict=True)
            if name in (ALL_MEDIA, medium)
        ]
        shares = np.concatenate(chosen, axis=1).mean(1).tolist()
        return {f"coverage@{k}": share for k, share in zip(self.ks, shares, strict=True)}


def several_ranks(
    scores_NV: NDArray[np.floating], row_P: NDArray[np.int64], item_P: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(P,) float64: the rank of each target.

    It is 1 + the number of items with a higher score + half the number of items with an equal score that are no targets
    + the number of targets before it with an equal score. `row_P` ascends; a user's targets are different items, as ids
    inside the medium.
    """
    mean_P = np.empty(len(row_P))
    step = max(1, scores_NV.shape[0])
    for first in range(0, len(row_P), step):
        part = slice(first, first + step)
        mean_P[part] = target_ranks(scores_NV[row_P[part]], item_P[part])
    # Targets with an equal score share their mean rank; they take places one after the other around it.
    order = np.lexsort((mean_P, row_P))
    row, mean = row_P[order], mean_P[order]
    is_first = np.append(True, (row[1:] != row[:-1]) | (mean[1:] != mean[:-1]))[: len(row)]
    group = np.cumsum(is_first) - 1
    place = np.arange(len(row)) - np.flatnonzero(is_first)[group]
    ranks = np.empty(len(row_P))
    ranks[order] = mean - (np.bincount(group)[group] - 1) / 2 + place
    return ranks


def several_names(ks: Sequence[int]) -> tuple[str, ...]:
    """`recall@k` for each of `ks`, then `ndcg@k`, then `map@k`."""
    return tuple(f"{name}@{k}" for name in ("recall", "ndcg", "map") for k in ks)


def several_figures(rank_P: NDArray[np.float64], row_P: NDArray[np.int64], ks: Sequence[int]) -> NDArray[np.float64]:
    """(N, F): each user's figures, in the order of `several_names`. Every user has a target; `row_P` ascends.

    Of a user with R targets: recall@k is the share of them with rank ≤ k; ndcg@k the sum of 1 / log2(1 + rank) over
    these, divided by its largest value; map@k the sum over these of (targets up to this rank) / rank, divided by
    min(R, k).
    """
    rank_P = rank_P[np.lexsort((rank_P, row_P))]
    num_N = np.bincount(row_P)
    number_P = np.arange(len(row_P)) - np.repeat(np.cumsum(num_N) - num_N, num_N) + 1
    best = np.cumsum(1 / np.log2(1 + np.arange(1, max(ks) + 1)))
    figures: dict[str, list[NDArray[Any]]] = {"recall": [], "ndcg": [], "map": []}
    for k in ks:
        hit_P = rank_P <= k
        most_N = np.minimum(num_N, k)
        for name, gain_P, best_N in (
            ("recall", hit_P, num_N),
            ("ndcg", hit_P / np.log2(1 + rank_P), best[most_N - 1]),
            ("map", hit_P * number_P / rank_P, most_N),
        ):
            figures[name].append(np.bincount(row_P, gain_P) / best_N)
    return np.stack([values for of in figures.values() for values in of], axis=1)
