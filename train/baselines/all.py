"""The interface of a baseline, and the list of all baselines.

A baseline is fitted on training events only. Then, like the model, it gets a history and predicts the next event. No
baseline sees planned events. `docs/evaluate.md` defines each of them and shows its results.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamfeat.store.manifest import Manifest
from train.baselines.pairs import ItemNeighbours, MarkovChain
from train.baselines.popularity import Popularity, RecentPopularity
from train.baselines.ratings import BiasedSVD, MeanRating, Units, UserItemBias
from train.terms.watched import Batches, Watched


class Ranker(Protocol):
    """Ranks the items of a medium for a history."""

    name: str
    uses_time: bool  # whether the time of the target changes its scores

    def fit(self, batches: Batches) -> None:
        """Learn from the training events."""

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """(n, V_m): for n users with the events `past`, the score of each item of the medium; higher is likelier.
        `times` (n,) are the times of the targets; None hides them."""


class Rater(Protocol):
    """Predicts a rating for a history."""

    name: str

    def fit(self, batches: Batches) -> None:
        """Learn from the training events."""

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,): the predicted rating by each of n users with the events `past` of `item` (n,), dense ids."""


def all_rankers(manifest: Manifest) -> Sequence[Ranker]:
    """Popularity, recent popularity, Markov chain, item-kNN; not yet fitted."""
    offsets = manifest.data_schema.medium_offsets
    return (
        Popularity(offsets),
        RecentPopularity(offsets, manifest.time_min, manifest.time_max),
        MarkovChain(offsets),
        ItemNeighbours(offsets),
    )


def all_raters(manifest: Manifest, seed: int) -> Sequence[Rater]:
    """Mean, biases, biased SVD; not yet fitted."""
    units = Units.of(manifest)
    return MeanRating(units), UserItemBias(units), BiasedSVD(units, manifest.num_users, seed)
