"""What a model has to beat in ranking and in ratings: what a baseline is, and the list of them.

Every baseline is fitted on training events alone and then, like the model, is shown a history and asked for the next
event. None of them sees planned events. `docs/evaluate.md` defines each and says what it reaches.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamfeat.store.manifest import Manifest
from train.baselines.pairs import ItemNeighbours, MarkovChain
from train.baselines.popularity import Popularity, RecentPopularity
from train.baselines.ratings import BiasedSVD, MeanRating, Units, UserItemBias
from train.baselines.watched import Batches, Watched


class Ranker(Protocol):
    """Ranks the items of a medium for a history."""

    name: str
    uses_time: bool  # whether the time of the target changes its scores

    def fit(self, batches: Batches) -> None:
        """Learn from the training events."""

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """(n, V_m): a score of each item of the medium, higher is likelier, for n users with the events `past` and
        the targets' `times` (n,), None where they are hidden."""


class Rater(Protocol):
    """Predicts a rating for a history."""

    name: str

    def fit(self, batches: Batches) -> None:
        """Learn from the training events."""

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,): the rating that each of n users with the events `past` gives `item` (n,), dense ids."""


def all_rankers(manifest: Manifest) -> Sequence[Ranker]:
    """Popularity, recent popularity, Markov chain, item-kNN; not fitted."""
    offsets = manifest.data_schema.medium_offsets
    return (
        Popularity(offsets),
        RecentPopularity(offsets, manifest.time_min, manifest.time_max),
        MarkovChain(offsets),
        ItemNeighbours(offsets),
    )


def all_raters(manifest: Manifest, seed: int) -> Sequence[Rater]:
    """Mean, biases, biased SVD; not fitted."""
    units = Units.of(manifest)
    return MeanRating(units), UserItemBias(units), BiasedSVD(units, manifest.num_users, seed)
