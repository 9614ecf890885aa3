"""What is popular at a time: decayed counts of each item's training events before the edges of time bins.

A target at time t reads the counts at the last edge that is not after t. They hold only events before that edge, so
never the target itself nor anything later.

Axes: E edges, H half-lives, F = H + 1 features, V items, n pairs of a bin and an item with events in it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.popularity import add_decayed, log_counts, next_edge
from train.terms.watched import Batches

_DAY = 86_400
HALF_LIVES = (1.0 * _DAY, 3.0 * _DAY, 14.0 * _DAY, 60.0 * _DAY, math.inf)  # seconds; the last one counts all events
NUM_FEATURES = len(HALF_LIVES) + 1
SMALLEST = 0.3  # events: the features grow with the logarithm of counts above it

_MOST_EDGES = 768
_MOST_FEATURES = 2**29  # numbers in all features: 1 GiB on a GPU, 2 on a CPU. With more items there are fewer edges.
_HISTOGRAM = 2**20  # parts of the training time; edges lie between two of them


@dataclass(frozen=True)
class PopularityCounts:
    """The training events of each time bin as decayed sums. Bin b lies between edges b and b + 1."""

    edges: NDArray[np.int64]  # (E,) ascending, seconds since time_origin; the last one is after every event
    bin: NDArray[np.int64]  # (n,) ascending
    item: NDArray[np.int32]  # (n,) dense id
    sums: NDArray[np.float32]  # (n, H): Σ 2^(-(edge after the bin - time) / half-life)

    @property
    def last_time(self) -> int:
        """The time of the last counted event, seconds since time_origin."""
        return int(self.edges[-1]) - 1

    def row_of(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the last edge that is not after each time. Times before the first edge get 0, whose counts
        are all 0, like those of the first edge."""
        rows: NDArray[np.int64] = np.searchsorted(self.edges, time, side="right") - 1
        return np.maximum(rows, 0)

    def features(self, num_items: int, rows: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.float32]]:
        """For each edge, (F, V): ln(1 + count / SMALLEST) of the events before it by half-life; then 1 for items
        without any. `rows`, ascending: of these edges alone. The array is overwritten by the next one."""
        is_asked = np.ones(len(self.edges), np.bool_)
        if rows is not None:
            is_asked[:] = False
            is_asked[rows] = True
        counts = np.zeros((len(HALF_LIVES), num_items))
        out = np.empty((NUM_FEATURES, num_items), np.float32)
        starts = np.searchsorted(self.bin, np.arange(len(self.edges) + 1) - 1)
        before = self.edges[0]
        for row in range(np.flatnonzero(is_asked)[-1] + 1 if is_asked.any() else 0):
            edge, events = self.edges[row], slice(starts[row], starts[row + 1])
            kept = np.exp2(-float(edge - before) / np.array(HALF_LIVES))
            next_edge(counts, kept, self.item[events], self.sums[events])
            before = edge
            if is_asked[row]:
                log_counts(counts, SMALLEST, out)
                yield out

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for a file."""
        return {"edges": self.edges, "bin": self.bin, "item": self.item, "sums": self.sums}


def add_popularity(
    known: PopularityCounts, time: NDArray[np.int64], item: NDArray[np.int32], num_items: int
) -> PopularityCounts:
    """`known` with later events: their times (n,), from the last edge of `known` on, and items (n,); n >= 1.

    Each new bin holds about as many events as the old ones do. If there are too many bins, pairs of the oldest are
    joined. Memory is bounded as in `count_popularity`.
    """
    most = _most_bins(num_items)
    num_old = len(known.edges) - 1
    events_of_bin = max(1.0, float(known.sums[:, -1].sum(dtype=np.float64)) / num_old)
    num_new = int(min(max(1, len(time) // events_of_bin), most))
    ascending = np.sort(time)
    starts = np.unique(ascending[len(time) * np.arange(1, num_new) // num_new])
    edges = np.concatenate((known.edges[-1:], starts[starts > known.edges[-1]], [ascending[-1] + 1]))
    sums = np.zeros((len(edges) - 1, num_items, len(HALF_LIVES)), np.float32)
    add_decayed(time, item, edges, np.array(HALF_LIVES), sums)
    bin_n, item_n = np.nonzero(sums[:, :, -1])
    found = PopularityCounts(
        np.append(known.edges, edges[1:]),
        np.append(known.bin, bin_n + num_old),
        np.append(known.item, item_n.astype(np.int32)),
        np.concatenate((known.sums, sums[bin_n, item_n])),
    )
    while (excess := len(found.edges) - 1 - most) > 0:
        found = _joined(found, excess, num_items)
    return found


def _joined(counts: PopularityCounts, num: int, num_items: int) -> PopularityCounts:
    """`counts` without the edges 1, 3, 5 …, at most `num` of them."""
    dropped = np.arange(1, len(counts.edges) - 1, 2)[:num]
    kept = np.delete(np.arange(len(counts.edges)), dropped)
    bin_n = np.searchsorted(kept, counts.bin + 1) - 1
    later = counts.edges[kept[bin_n + 1]] - counts.edges[counts.bin + 1]
    decayed = counts.sums * np.exp2(-later[:, None] / np.array(HALF_LIVES))
    pairs, index = np.unique(bin_n * num_items + counts.item, return_inverse=True)
    sums = np.stack([np.bincount(index, of_half_life, len(pairs)) for of_half_life in decayed.T], 1)
    bins, items = np.divmod(pairs, num_items)
    return PopularityCounts(counts.edges[kept], bins, items.astype(np.int32), sums.astype(np.float32))


def count_popularity(batches: Batches, time_min: int, time_max: int, num_items: int) -> PopularityCounts:
    """Counts the events of `batches`, whose times lie in time_min … time_max. Reads them twice.

    The edges divide the events into at most 768 equal parts; fewer if many items would make the features too large.
    Memory: at most 2 GiB while it runs.
    """
    edges = _quantiles(batches, time_min, time_max, _most_bins(num_items))
    sums = np.zeros((len(edges) - 1, num_items, len(HALF_LIVES)), np.float32)
    for batch in batches():
        add_decayed(batch.time, batch.item.astype(np.int32), edges, np.array(HALF_LIVES), sums)
    bin_n, item_n = np.nonzero(sums[:, :, -1])
    return PopularityCounts(edges, bin_n, item_n.astype(np.int32), sums[bin_n, item_n])


def _most_bins(num_items: int) -> int:
    return max(2, min(_MOST_EDGES, _MOST_FEATURES // NUM_FEATURES // num_items))


def _quantiles(batches: Batches, time_min: int, time_max: int, num: int) -> NDArray[np.int64]:
    """At most `num` + 1 edges with about as many events between each two, and one after the last event."""
    width = -(-(time_max - time_min + 1) // _HISTOGRAM)
    counts = np.zeros((time_max - time_min) // width + 1, np.int64)
    for batch in batches():
        counts += np.bincount((batch.time - time_min) // width, minlength=len(counts))
    total = np.append(0, np.cumsum(counts))
    # The first part whose events before it are at least k / num of all.
    parts = np.searchsorted(total, total[-1] * np.arange(num) / num)
    return np.append(np.unique(np.append(0, parts[parts < len(counts)])) * width + time_min, time_max + 1)
