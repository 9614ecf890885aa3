"""Rivals that look at which items stand together in histories: a Markov chain and nearest neighbours.

Both score by the most recent events, whose weights halve every 3 events. Their tables hold all pairs of items, of the
16,384 most frequent ones where there are more; all others they rank by popularity.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.counts import add_cooccurrences, add_neighbours
from train.baselines.popularity import count_items
from train.baselines.watched import Batches, Watched

HALF_LIFE = 3  # events
WINDOW = 10  # events between which the Markov chain sees a transition
SMOOTHING = 20  # events' worth of popularity in the Markov chain's transitions

_MAX_ITEMS = 16_384  # a table of their pairs takes 1 GiB
_RECENT = 64  # events that score: the weight of the one before is 2^-21
_MAX_EVENTS = 1_000  # of a history, the most recent, between which neighbours are counted


class _Pairs:
    """Which items have a row in the table of pairs, and how popular all are."""

    def __init__(self, batches: Batches, medium_offsets: Sequence[int], max_items: int) -> None:
        counts = count_items(batches, medium_offsets[-1])
        kept = np.sort(np.argsort(-counts, kind="stable")[:max_items])
        self.place = np.full(len(counts), -1, np.int32)  # (V,): row of each item, -1: none; ascending with the id
        self.place[kept] = np.arange(len(kept), dtype=np.int32)
        self.popularity = counts / max(1, int(counts.sum()))  # (V,), over all media
        self.table = np.zeros((len(kept), len(kept)), np.float32)
        # Inside its medium each item that has a column, and the columns of a medium.
        self.inside = [kept[(kept >= low) & (kept < high)] - low for low, high in itertools.pairwise(medium_offsets)]
        edges = np.searchsorted(kept, medium_offsets)
        self.columns = [slice(low, high) for low, high in itertools.pairwise(edges)]

    def weighted_rows(
        self, places: NDArray[np.int32], weights: NDArray[np.float32], medium: int
    ) -> NDArray[np.float32]:
        """(columns of the medium,): Σ weight · row of the table, over places that are not -1."""
        known = places >= 0
        rows: NDArray[np.float32] = weights[known] @ self.table[places[known], self.columns[medium]]
        return rows


class MarkovChain:
    """Score: mean over past items i of P(j | i) = (T_ij + 20 · popularity_j) / (T_i + 20).

    T_ij adds 1 / lag for every two training events of a user at most 10 events apart, in either order.
    """

    name = "markov_chain"
    uses_time = False

    def __init__(self, medium_offsets: Sequence[int], *, max_items: int = _MAX_ITEMS) -> None:
        self._medium_offsets = medium_offsets
        self._max_items = max_items

    def fit(self, batches: Batches) -> None:
        """As `Ranker.fit`."""
        self._pairs = pairs = _Pairs(batches, self._medium_offsets, self._max_items)
        for batch in batches():
            add_neighbours(batch.offsets, pairs.place[batch.item], WINDOW, pairs.table)
        self._row_sums = pairs.table.sum(1, dtype=np.float64)

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        low, high = self._medium_offsets[medium : medium + 2]
        pairs = self._pairs
        scores = np.tile(pairs.popularity[low:high], (past.num_users, 1))
        for row, items in zip(scores, _recent_items(past), strict=True):
            if not len(items):
                continue
            places, weights = pairs.place[items], _weights(len(items))
            total = np.where(places >= 0, self._row_sums[places], 0) + SMOOTHING
            row *= weights @ (SMOOTHING / total)
            row[pairs.inside[medium]] += pairs.weighted_rows(places, (weights / total).astype(np.float32), medium)
        return scores


class ItemNeighbours:
    """Score: mean over past items i of the similarity of j, the similarities of an item adding up to 1.

    The similarity is the cosine of two items' columns of the matrix of users and items, a user with n items weighing
    1 / n: otherwise the longest histories decide. Equal scores go by popularity.
    """

    name = "item_knn"
    uses_time = False

    def __init__(self, medium_offsets: Sequence[int], *, max_items: int = _MAX_ITEMS) -> None:
        self._medium_offsets = medium_offsets
        self._max_items = max_items

    def fit(self, batches: Batches) -> None:
        """As `Ranker.fit`."""
        self._pairs = pairs = _Pairs(batches, self._medium_offsets, self._max_items)
        for batch in batches():
            recent = batch.last(_MAX_EVENTS)
            # Each item of a user once.
            keys = np.unique(recent.user() * self._medium_offsets[-1] + recent.item)
            user, item = np.divmod(keys, self._medium_offsets[-1])
            counts = np.bincount(user, minlength=batch.num_users)
            weights = (1 / np.maximum(counts, 1)).astype(np.float32)
            add_cooccurrences(np.append(0, np.cumsum(counts)), pairs.place[item], weights, pairs.table)
        table = pairs.table
        norms = np.sqrt(np.maximum(table.diagonal(), np.finfo(np.float32).tiny))
        np.fill_diagonal(table, 0)
        table /= norms  # an item's own norm goes when its row is made to add up to 1
        sums = table.sum(1, keepdims=True)
        np.divide(table, sums, out=table, where=sums > 0)

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        low, high = self._medium_offsets[medium : medium + 2]
        pairs = self._pairs
        scores = np.tile(pairs.popularity[low:high] * 1e-9, (past.num_users, 1))
        for row, items in zip(scores, _recent_items(past), strict=True):
            if len(items):
                row[pairs.inside[medium]] += pairs.weighted_rows(
                    pairs.place[items], _weights(len(items)).astype(np.float32), medium
                )
        return scores


def _recent_items(past: Watched) -> list[NDArray[np.int64]]:
    recent = past.last(_RECENT)
    return np.split(recent.item, recent.offsets[1:-1])


def _weights(num_events: int) -> NDArray[np.float64]:
    """(events,), adding up to 1: halving every HALF_LIFE events back from the last."""
    weights = np.exp2(-np.arange(num_events)[::-1] / HALF_LIFE)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
