"""Baselines that count which items occur together in histories: a Markov chain and nearest neighbours.

Both weigh the events of a history by `recent_events`. Their tables hold all pairs of the 16,384 most frequent items.
Other items are ranked by popularity.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.counts import add_cooccurrences, add_neighbours
from streamfeat.kernels.decayed import add_weighted_rows
from train.baselines.choice import Measure, best_of, best_settings
from train.baselines.popularity import count_items
from train.baselines.recency import recent_events
from train.terms.watched import Batches, Watched

# What is tried on validation. The first of each is the default: the values that were chosen on MovieLens-100K.
WINDOWS = (10, 1, 3, 20)  # events
BACKWARDS = (1.0, 0.0, 0.3)
HALF_LIVES = (3.0, 0.5, 1.0, 2.0, 5.0, 8.0, 16.0, 32.0)  # events
SMOOTHINGS = (20.0, 1.0, 5.0, 80.0, 300.0)  # events
SHRINKAGES = (0.0, 3.0, 15.0, 75.0, 400.0)  # events
EXPONENTS = (0.5, 0.0, 0.25, 0.75, 1.0)

_MAX_ITEMS = 16_384  # a table of their pairs takes 1 GiB
_MAX_EVENTS = 1_000  # the most recent events of a history; only pairs of them are counted


@dataclass(frozen=True)
class FrequentItems:
    """The items that have a row and a column in a table of pairs, and the popularity of all items."""

    medium_offsets: Sequence[int]
    counts: NDArray[np.int64]  # (V,): training targets
    place: NDArray[np.int32]  # (V,): the row of each item, ascending with the id; -1: none
    kept: NDArray[np.int64]  # (M,): the item of each row

    @classmethod
    def of(cls, batches: Batches, medium_offsets: Sequence[int], max_items: int = _MAX_ITEMS) -> "FrequentItems":
        """The `max_items` most frequent items; of equally frequent ones those of lower ids."""
        return cls.of_counts(count_items(batches, medium_offsets[-1]), medium_offsets, max_items)

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64], medium_offsets: Sequence[int], max_items: int) -> "FrequentItems":
        """As `of`, from the training targets of each item (V,)."""
        kept = np.sort(np.argsort(-counts, kind="stable")[:max_items])
        place = np.full(len(counts), -1, np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        return cls(medium_offsets, counts, place, kept)

    def popularity(self, medium: int) -> NDArray[np.float64]:
        """(V_m,): each item's share of the training targets of all media."""
        low, high = self.medium_offsets[medium : medium + 2]
        shares: NDArray[np.float64] = self.counts[low:high] / max(1, int(self.counts.sum()))
        return shares

    def add_rows(
        self,
        scores: NDArray[np.float64],
        recent: Watched,
        weights: NDArray[np.float64],
        table: NDArray[np.float32],
        medium: int,
        scale: NDArray[np.float32] | None = None,
    ) -> None:
        """Adds Σ weight · row of the table over each user's events to `scores` (n, V_m). `scale` (M,): of columns."""
        low, high = np.searchsorted(self.kept, self.medium_offsets[medium : medium + 2])
        rows = np.zeros((len(scores), high - low), np.float32)
        add_weighted_rows(recent.offsets, self.place[recent.item], weights.astype(np.float32), table, int(low), rows)
        if scale is not None:
            rows *= scale[low:high]
        if high - low == scores.shape[1]:
            scores += rows
        else:
            scores[:, self.kept[low:high] - self.medium_offsets[medium]] += rows


@dataclass(frozen=True)
class Transitions:
    """T_ij: a sum over all pairs of training events of a user that are at most `window` events apart.

    Each pair adds 1 / lag forwards, from the earlier item to the later, and `backward` / lag the other way.
    """

    items: FrequentItems
    window: int
    backward: float
    table: NDArray[np.float32]  # (M, M)
    row_sums: NDArray[np.float64]  # (M,)

    @classmethod
    def count(cls, batches: Batches, items: FrequentItems, window: int, backward: float) -> "Transitions":
        """Reads the training events once."""
        table = np.zeros((len(items.kept), len(items.kept)), np.float32)
        for batch in batches():
            add_neighbours(batch.offsets, items.place[batch.item], window, backward, table)
        return cls(items, window, backward, table, table.sum(1, dtype=np.float64))


@dataclass(frozen=True)
class MarkovChain:
    """Score: the mean over past items i of P(j | i) = (T_ij + smoothing · popularity_j) / (T_i + smoothing)."""

    transitions: Transitions
    half_life: float = HALF_LIVES[0]  # events, of the mean's weights
    smoothing: float = SMOOTHINGS[0]  # popularity counts like so many events

    name = family = "markov_chain"
    uses_time = False

    @property
    def settings(self) -> Mapping[str, float | str]:
        """What was chosen."""
        of = self.transitions
        return {
            "window": of.window,
            "backward": of.backward,
            "half_life": self.half_life,
            "smoothing": self.smoothing,
        }

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        items, row_sums = self.transitions.items, self.transitions.row_sums
        recent, weights = recent_events(past, self.half_life)
        places = items.place[recent.item]
        total = np.where(places >= 0, row_sums[places], 0) + self.smoothing
        of_popularity = np.bincount(recent.user(), weights * self.smoothing / total, past.num_users)
        of_popularity[np.diff(recent.offsets) == 0] = 1
        scores = of_popularity[:, None] * items.popularity(medium)
        items.add_rows(scores, recent, weights / total, self.transitions.table, medium)
        return scores


@dataclass(frozen=True)
class ItemNeighbours:
    """Score: the mean over past items i of S_ij · n_i / (n_i + shrinkage).

    Similarities S_ij ∝ G_ij / G_jj^exponent add up to 1 for each i; n_i is the number of training targets. G counts the
    users who watched both items; a user with n items has the weight 1 / n, or the longest histories would decide. The
    exponent .5 gives cosines, 0 conditional probabilities. Equal scores are ordered by popularity.
    """

    items: FrequentItems
    table: NDArray[np.float32]  # (M, M): G with 0 in the diagonal
    own: NDArray[np.float32]  # (M,): the diagonal
    half_life: float = HALF_LIVES[0]
    shrinkage: float = SHRINKAGES[0]
    exponent: float = EXPONENTS[0]

    name = family = "item_knn"
    uses_time = False

    @classmethod
    def count(cls, batches: Batches, items: FrequentItems) -> "ItemNeighbours":
        """Reads the training events once."""
        table = np.zeros((len(items.kept), len(items.kept)), np.float32)
        for batch in batches():
            offsets, item = distinct_items(batch.last(_MAX_EVENTS), len(items.place))
            weights = (1 / np.maximum(np.diff(offsets), 1)).astype(np.float32)
            add_cooccurrences(offsets, items.place[item], weights, table)
        own = table.diagonal().copy()
        np.fill_diagonal(table, 0)
        return cls(items, table, own)

    @property
    def settings(self) -> Mapping[str, float | str]:
        """What was chosen."""
        return {"half_life": self.half_life, "shrinkage": self.shrinkage, "exponent": self.exponent}

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        items = self.items
        recent, weights = recent_events(past, self.half_life)
        scale, all_sums = self._scale_and_sums
        places, counts = items.place[recent.item], items.counts[recent.item]
        sums = np.where(places >= 0, all_sums[places], 0)
        shares = counts / np.maximum(counts + self.shrinkage, 1)
        weights = np.where(sums > 0, weights * shares / np.where(sums > 0, sums, 1), 0)
        scores = np.tile(items.popularity(medium) * 1e-9, (past.num_users, 1))
        items.add_rows(scores, recent, weights, self.table, medium, scale)
        return scores

    @cached_property
    def _scale_and_sums(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """(M,): 1 / G_jj^exponent, 0 for items that nobody watched; and (M,): Σ_j G_ij / G_jj^exponent."""
        scale = np.zeros_like(self.own)
        np.power(self.own, np.float32(-self.exponent), out=scale, where=self.own > 0)
        return scale, (self.table @ scale).astype(np.float64)


def distinct_items(watched: Watched, num_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n + 1,) offsets and (items,): what each user watched. An item counts once, however often it was watched."""
    user, item = np.divmod(np.unique(watched.user() * num_items + watched.item), num_items)
    return np.append(0, np.cumsum(np.bincount(user, minlength=watched.num_users))), item


def fit_markov_chain(
    batches: Batches, medium_offsets: Sequence[int], measure: Measure[MarkovChain], max_items: int = _MAX_ITEMS
) -> MarkovChain:
    """The chain with the best settings on validation. Memory holds two tables of pairs while they are tried."""
    items = FrequentItems.of(batches, medium_offsets, max_items)

    def counted(window: int, backward: float) -> MarkovChain:
        return MarkovChain(Transitions.count(batches, items, window, backward))

    chain = best_of((counted(window, BACKWARDS[0]) for window in WINDOWS), measure)
    others = (counted(chain.transitions.window, backward) for backward in BACKWARDS[1:])
    chain = best_of(itertools.chain([chain], others), measure)
    return best_settings(chain, (("half_life", HALF_LIVES), ("smoothing", SMOOTHINGS)), measure)


def fit_item_neighbours(
    batches: Batches, medium_offsets: Sequence[int], measure: Measure[ItemNeighbours], max_items: int = _MAX_ITEMS
) -> ItemNeighbours:
    """The neighbours with the best settings on validation."""
    neighbours = ItemNeighbours.count(batches, FrequentItems.of(batches, medium_offsets, max_items))
    grid = (("half_life", HALF_LIVES), ("exponent", EXPONENTS), ("shrinkage", SHRINKAGES))
    return best_settings(neighbours, grid, measure)
