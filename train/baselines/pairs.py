"""Baselines that count which items occur together in histories: a Markov chain and nearest neighbours.

Both use the most recent events of a history; an event 3 places earlier has half the weight. Their tables hold all pairs
of the 16,384 most frequent items. Other items are ranked by popularity.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.counts import add_cooccurrences, add_neighbours
from train.baselines.popularity import count_items
from train.terms.watched import Batches, Watched

HALF_LIFE = 3  # events
WINDOW = 10  # the Markov chain counts a transition between events that are at most so many events apart
SMOOTHING = 20  # popularity counts in the Markov chain's transitions like so many events

_MAX_ITEMS = 16_384  # a table of their pairs takes 1 GiB
_RECENT = 64  # the most recent events that are used: an event before them would have the weight 2^-21
_MAX_EVENTS = 1_000  # the most recent events of a history; only pairs of them are counted


class _Pairs:
    """The table of pairs, the items that have a row in it, and the popularity of all items."""

    def __init__(self, batches: Batches, medium_offsets: Sequence[int], max_items: int) -> None:
        counts = count_items(batches, medium_offsets[-1])
        kept = np.sort(np.argsort(-counts, kind="stable")[:max_items])
        self.place = np.full(len(counts), -1, np.int32)  # (V,): the row of each item, ascending with the id; -1: none
        self.place[kept] = np.arange(len(kept), dtype=np.int32)
        self.popularity = counts / max(1, int(counts.sum()))  # (V,), over all media
        self.table = np.zeros((len(kept), len(kept)), np.float32)
        # For each medium: the items that have a column, as ids inside the medium; and the columns themselves.
        self.inside = [kept[(kept >= low) & (kept < high)] - low for low, high in itertools.pairwise(medium_offsets)]
        edges = np.searchsorted(kept, medium_offsets)
        self.columns = [slice(low, high) for low, high in itertools.pairwise(edges)]

    def weighted_rows(
        self, places: NDArray[np.int32], weights: NDArray[np.float32], medium: int
    ) -> NDArray[np.float32]:
        """(columns of the medium,): Σ weight · row of the table. Places of -1 are left out."""
        known = places >= 0
        rows: NDArray[np.float32] = weights[known] @ self.table[places[known], self.columns[medium]]
        return rows


class MarkovChain:
    """Score: the mean over past items i of P(j | i) = (T_ij + 20 · popularity_j) / (T_i + 20).

    T_ij is a sum over all pairs of training events of a user that are at most 10 events apart, in either order. Each
    pair adds 1 / lag.
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
    """Score: the mean over past items i of the similarity of i and j. The similarities of an item add up to 1.

    The similarity is the cosine of two items' columns in the matrix of users and items. A user with n items has the
    weight 1 / n; otherwise the longest histories would decide. Equal scores are ordered by popularity.
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
            # A user counts once for an item, however often it was watched.
            keys = np.unique(recent.user() * self._medium_offsets[-1] + recent.item)
            user, item = np.divmod(keys, self._medium_offsets[-1])
            counts = np.bincount(user, minlength=batch.num_users)
            weights = (1 / np.maximum(counts, 1)).astype(np.float32)
            add_cooccurrences(np.append(0, np.cumsum(counts)), pairs.place[item], weights, pairs.table)
        table = pairs.table
        norms = np.sqrt(np.maximum(table.diagonal(), np.finfo(np.float32).tiny))
        np.fill_diagonal(table, 0)
        table /= norms  # the norm of the row's own item cancels when the row is scaled to add up to 1
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
    """(events,), adding up to 1: the weight halves with every HALF_LIFE events before the last."""
    weights = np.exp2(-np.arange(num_events)[::-1] / HALF_LIFE)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
