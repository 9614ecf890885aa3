"""Fits all baselines with their settings chosen on validation, and keeps how each of them does there.

Axes: C validation cases, R of them with a rating.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.progress import Progress
from streamfeat.store.manifest import Manifest
from train.baselines.all import LeftOut, Ranker, Rater, ranking_families, rating_families
from train.evaluation.figures import BaselineLine, Time
from train.evaluation.tuning import Validation
from train.terms.watched import Batches

SystemKey = tuple[str, Time]  # a system's name, and whether it knows the target's time


@dataclass(frozen=True)
class Fitted:
    """The baselines, and what they reach on validation."""

    rankers: tuple[Ranker, ...]
    raters: tuple[Rater, ...]
    left_out: tuple[LeftOut, ...]
    medium_C: NDArray[np.int64]
    rated_C: NDArray[np.bool_]
    families: Mapping[str, str]  # the family of each baseline
    gains: Mapping[SystemKey, NDArray[np.float64]]  # (C,): ndcg@10, seen items removed as the model does
    squares: Mapping[SystemKey, NDArray[np.float64]]  # (R,): squared errors

    def lines(self) -> Iterator[BaselineLine]:
        """The settings of every baseline, and its mean figures over the validation cases of all media."""
        for ranker in self.rankers:
            gains = _means(self.gains, ranker.name)
            yield BaselineLine(ranker.name, ranker.family, dict(ranker.settings), "ndcg@10", gains)
        for rater in self.raters:
            rmse = {time: mean**0.5 for time, mean in _means(self.squares, rater.name).items()}
            yield BaselineLine(rater.name, rater.family, dict(rater.settings), "rmse", rmse)


def _means(values: Mapping[SystemKey, NDArray[np.float64]], name: str) -> dict[Time, float]:
    return {time: float(of.mean()) for (system, time), of in values.items() if system == name and len(of)}


def fit_steps(
    manifest: Manifest, batches: Batches, validation: Validation, seed: int
) -> Generator[Progress, None, Fitted]:
    """Yields progress and returns the baselines. `seed` draws the initial factors of the SVD."""
    rankings = ranking_families(manifest, batches, validation.ranking_measure())
    ratings = rating_families(manifest, batches, seed, validation.rating_measure())
    rankers: list[Ranker] = []
    raters: list[Rater] = []
    left_out: list[LeftOut] = []
    total = len(rankings) + len(ratings)
    for done, ranking in enumerate(rankings):
        yield Progress("fitting", done, total, "families of baselines", ranking.name)
        for ranker in ranking.fit():
            left_out.append(ranker) if isinstance(ranker, LeftOut) else rankers.append(ranker)
    for done, rating in enumerate(ratings, start=len(rankings)):
        yield Progress("fitting", done, total, "families of baselines", rating.name)
        for rater in rating.fit():
            left_out.append(rater) if isinstance(rater, LeftOut) else raters.append(rater)
    yield Progress("fitting", total, total, "families of baselines")
    gains: dict[SystemKey, NDArray[np.float64]] = {}
    for ranker in rankers:
        times: tuple[Time, ...] = ("given", "hidden") if ranker.uses_time else ("not used",)
        for time in times:
            gains[ranker.name, time] = validation.gains(ranker, told=time == "given")
    squares: dict[SystemKey, NDArray[np.float64]] = {(of.name, "not used"): validation.squares(of) for of in raters}
    is_rated = validation.is_rated
    families = {of.name: of.family for of in (*rankers, *raters)}
    return Fitted(tuple(rankers), tuple(raters), tuple(left_out), validation.medium, is_rated, families, gains, squares)
