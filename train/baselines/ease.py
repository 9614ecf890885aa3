"""EASE: a linear model from the items of a history to the next item, in closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (2019).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from streamfeat.kernels.counts import add_cooccurrences
from train.baselines.choice import Measure, best_of, best_settings
from train.baselines.pairs import FrequentItems, distinct_items
from train.baselines.popularity import count_items
from train.baselines.recency import recent_events
from train.devices.available import available_bytes
from train.terms.watched import Batches, Watched

MAX_ITEMS = 20_000
DAMPINGS = (100.0, 3.0, 10.0, 30.0, 300.0, 1000.0)  # the first of each is the default
HALF_LIVES = (6.0, math.inf, 1.0, 3.0, 12.0, 25.0, 50.0)  # events; infinity: all events weigh the same

_TUNED_ITEMS = 4_096  # the damping is tuned on the most frequent ones: inverting takes items³ operations
_MAX_EVENTS = 1_000  # the most recent events of a history; only pairs of them are counted
_BYTES = 20  # for each pair of items at the peak: the counts and two matrices of float64


@dataclass(frozen=True)
class Ease:
    """Score: Σ over past items i of weight · B_ij; B = 1 - P / diag(P), P = (XᵀX + damping)⁻¹, diagonal of B = 0.

    X (users, items) is 1 where a user watched an item. Weights halve with every `half_life` events before the last one;
    an item that was watched several times has the weight of its last time. Equal scores are ordered by popularity.
    """

    items: FrequentItems
    table: NDArray[np.float32]  # (M, M): B
    damping: float
    half_life: float = HALF_LIVES[0]

    name = family = "ease"
    uses_time = False

    @classmethod
    def solved(cls, items: FrequentItems, gram: NDArray[np.float32], damping: float) -> "Ease":
        """From XᵀX; computed in float64."""
        matrix = torch.from_numpy(gram).double()
        matrix.diagonal().add_(damping)
        lower = torch.linalg.cholesky(matrix)
        del matrix
        inverse = torch.cholesky_inverse(lower)
        del lower
        inverse /= -inverse.diagonal().clone()
        inverse.fill_diagonal_(0)
        return cls(items, np.ascontiguousarray(inverse.float().numpy()), damping)

    @property
    def settings(self) -> Mapping[str, float | str]:
        """What was chosen."""
        return {"damping": self.damping, "half_life": "none" if math.isinf(self.half_life) else self.half_life}

    def scores(self, past: Watched, times: NDArray[np.int64] | None, medium: int) -> NDArray[np.float64]:
        """As `Ranker.scores`."""
        recent, weights = recent_events(past, self.half_life)
        keys = recent.user() * len(self.items.place) + recent.item
        is_last = np.zeros(len(keys), np.bool_)
        is_last[len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1]] = True
        scores = np.tile(self.items.popularity(medium) * 1e-9, (past.num_users, 1))
        self.items.add_rows(scores, recent, np.where(is_last, weights, 0), self.table, medium)
        return scores


def fit_ease(
    batches: Batches, medium_offsets: Sequence[int], measure: Measure[Ease], *, tuned_items: int = _TUNED_ITEMS
) -> Ease | str:
    """The model with the best settings on validation, or why there is none.

    Items with a single training event are ranked by popularity: they would cost most of the time of inverting.
    """
    counts = count_items(batches, medium_offsets[-1])
    num_items = max(1, int(np.count_nonzero(counts > 1)))
    if num_items > MAX_ITEMS:
        return f"{num_items:,} items were watched more than once, it takes up to {MAX_ITEMS:,}"
    needed, free = _BYTES * num_items**2, available_bytes(torch.device("cpu"))
    if needed > free:
        return f"it needs {needed / 2**30:.1f} GiB of memory for {num_items:,} items, {free / 2**30:.1f} GiB are free"
    items = FrequentItems.of_counts(counts, medium_offsets, num_items)
    gram = _gram(batches, items)
    frequent = items if num_items <= tuned_items else FrequentItems.of_counts(counts, medium_offsets, tuned_items)
    few = gram if frequent is items else np.ascontiguousarray(gram[np.ix_(frequent.kept, frequent.kept)])
    tried = [Ease.solved(frequent, few, damping) for damping in (DAMPINGS if measure else DAMPINGS[:1])]
    ease = best_settings(best_of(tried, measure), (("half_life", HALF_LIVES),), measure)
    ease = best_of([ease, *(replace(other, half_life=ease.half_life) for other in tried)], measure)
    if frequent is items:
        return ease
    del few, tried
    return replace(Ease.solved(items, gram, ease.damping), half_life=ease.half_life)


def _gram(batches: Batches, items: FrequentItems) -> NDArray[np.float32]:
    """(M, M): XᵀX, the number of users who watched both items."""
    gram = np.zeros((len(items.kept), len(items.kept)), np.float32)
    for batch in batches():
        offsets, item = distinct_items(batch.last(_MAX_EVENTS), len(items.place))
        add_cooccurrences(offsets, items.place[item], np.ones(len(offsets) - 1, np.float32), gram)
    return gram
