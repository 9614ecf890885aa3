"""The interface of a baseline, and the list of all baselines.

A baseline is fitted on training events only; its settings are the best ones on validation. Then, like the model, it
gets a history and predicts the next event. No baseline sees planned events. `docs/evaluate.md` defines each of them and
shows its results.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from streamfeat.store.manifest import Manifest
from train.baselines.choice import Measure
from train.baselines.ease import fit_ease
from train.baselines.factors import fit_factors
from train.baselines.pairs import fit_item_neighbours, fit_markov_chain
from train.baselines.popularity import (
    HALF_LIVES,
    DecayedPopularity,
    EventTimes,
    Popularity,
    RecentPopularity,
    count_items,
)
from train.baselines.ratings import MeanRating, fit_biases
from train.devices.available import available_bytes
from train.terms.ratings import Units
from train.terms.watched import Batches, Watched


class System(Protocol):
    """A fitted baseline."""

    @property
    def name(self) -> str:
        """As in the tables."""

    @property
    def family(self) -> str:
        """Baselines of one family count the same thing, with other settings."""

    @property
    def settings(self) -> Mapping[str, float | str]:
        """The settings that it was fitted with."""


class Ranker(System, Protocol):
    """Ranks the items of a medium for a history."""

    @property
    def uses_time(self) -> bool:
        """Whether the time of the target changes its scores."""

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """(n, V_m): for n users with the events `past`, the score of each item of the medium; higher is likelier.
        `times` (n,) are the times of the targets; None hides them."""


class Rater(System, Protocol):
    """Predicts a rating for a history."""

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,): the predicted rating by each of n users with the events `past` of `item` (n,), dense ids."""


@dataclass(frozen=True)
class LeftOut:
    """A baseline that was not fitted."""

    system: str
    reason: str


S = TypeVar("S", bound=System)


@dataclass(frozen=True)
class Family(Generic[S]):
    """Baselines that are fitted together, when `fit` is called."""

    name: str
    fit: Callable[[], Iterator[S | LeftOut]]


_EVENT_BYTES = 8 + 8 + 4 * len(HALF_LIVES)  # at the peak, for each training event, of the counts that halve with time


def ranking_families(manifest: Manifest, batches: Batches, measure: Measure[Ranker]) -> Sequence[Family[Ranker]]:
    """Popularity, Markov chain, item-kNN, EASE."""
    offsets = manifest.data_schema.medium_offsets

    def ease() -> Iterator[Ranker | LeftOut]:
        fitted = fit_ease(batches, offsets, measure)
        yield LeftOut("ease", fitted) if isinstance(fitted, str) else fitted

    return (
        Family("popularity", lambda: _popularities(manifest, batches)),
        Family("markov_chain", lambda: iter([fit_markov_chain(batches, offsets, measure)])),
        Family("item_knn", lambda: iter([fit_item_neighbours(batches, offsets, measure)])),
        Family("ease", ease),
    )


def rating_families(
    manifest: Manifest, batches: Batches, seed: int, measure: Measure[Rater]
) -> Sequence[Family[Rater]]:
    """Mean, biases, biased SVD."""
    units = Units.of(manifest)
    return (
        Family("mean_rating", lambda: iter([MeanRating(units)])),
        Family("user_item_bias", lambda: iter([fit_biases(batches, units, measure)])),
        Family("biased_svd", lambda: iter([fit_factors(batches, units, manifest.num_users, seed, measure)])),
    )


def _popularities(manifest: Manifest, batches: Batches) -> Iterator[Ranker | LeftOut]:
    offsets = manifest.data_schema.medium_offsets
    counts = count_items(batches, offsets[-1])
    yield Popularity(offsets, counts)
    yield RecentPopularity(batches, offsets, manifest.time_min, manifest.time_max)
    needed, free = _EVENT_BYTES * int(counts.sum()), available_bytes(torch.device("cpu"))
    if needed > free:
        reason = f"they need {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free"
        yield LeftOut("popularity with half-lives", reason)
        return
    events = EventTimes.of(batches, offsets[-1])
    for half_life in HALF_LIVES:
        yield DecayedPopularity(events, offsets, half_life)
