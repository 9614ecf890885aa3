"""Neighbours of items and what they say about the next one, against slow twins on random histories."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfeat.kernels.neighbours import (
    EventIndex,
    Neighbours,
    heaviest_neighbours,
    log_lift,
    place_items,
)

NUM_ITEMS, WINDOW = 9, 3

histories = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=12), max_size=6)


def index_of(given_histories: list[list[int]], new_from: int) -> EventIndex:
    item = np.array([i for history in given_histories for i in [*history, -1]] + [-1], np.int32)
    place_of = [place for history in given_histories for place in range(len(history) + 1)] + [0]
    start = np.append(0, np.cumsum(np.bincount(item[item >= 0], minlength=NUM_ITEMS)))
    place, position = np.empty(start[-1], np.int32), start[:-1].copy()
    place_items(position, item, place)
    np.testing.assert_array_equal(position, start[1:])
    return EventIndex(item, start, place, np.array(place_of) >= new_from)


def weights_of(given_histories: list[list[int]], new_from: int) -> Counter[tuple[int, int]]:
    """(i, j) → Σ 1 / lag over pairs in which j follows i by at most WINDOW events and is new."""
    weights: Counter[tuple[int, int]] = Counter()
    for history in given_histories:
        for later in range(new_from, len(history)):
            for earlier in range(max(0, later - WINDOW), later):
                weights[history[earlier], history[later]] += 1 / (later - earlier)
    return weights


def neighbours_of(known: dict[tuple[int, int], float]) -> Neighbours:
    """A table that holds the weights of pairs."""
    pairs = sorted(known)
    start = np.searchsorted([i for i, _ in pairs], np.arange(NUM_ITEMS + 1)).astype(np.int64)
    total = np.array([sum(known[pair] for pair in pairs if pair[0] == i) + i for i in range(NUM_ITEMS)], float)
    weight = np.array([known[pair] for pair in pairs], np.float32)
    return Neighbours(start, np.array([j for _, j in pairs], np.int32), weight, total, np.zeros(NUM_ITEMS, np.int64))


@settings(deadline=None, max_examples=60)
@given(
    histories,
    st.integers(0, 4),
    st.dictionaries(st.tuples(*[st.integers(0, NUM_ITEMS - 1)] * 2), st.integers(1, 9).map(lambda n: n / 4)),
    st.integers(1, 5),
)
def test_the_heaviest_neighbours_are_kept_whatever_the_order(
    given_histories: list[list[int]], new_from: int, known: dict[tuple[int, int], float], most: int
) -> None:
    """Of equal weights the lower item; what was known counts; scratch memory is left as it was."""
    index, wanted, before = index_of(given_histories, new_from), Counter(known), neighbours_of(known)
    wanted.update(weights_of(given_histories, new_from))
    sums, met = np.zeros(NUM_ITEMS), np.empty(NUM_ITEMS, np.int32)
    for first, num in ((0, NUM_ITEMS), (4, 3)):
        item, weight = np.full((num, most), -9, np.int32), np.zeros((num, most), np.float32)
        total = np.empty(num)
        heaviest_neighbours(index, before, first, WINDOW, sums, met, item, weight, total)
        assert not sums.any()
        for r in range(num):
            of_item = {j: np.float32(w) for (i, j), w in wanted.items() if i == first + r}
            best = sorted(of_item, key=lambda j: (-of_item[j], j))[:most]
            kept = item[r] >= 0
            assert dict(zip(item[r][kept].tolist(), weight[r][kept].tolist(), strict=True)) == {
                j: pytest.approx(of_item[j]) for j in best
            }
            left_out = first + r  # by neighbours_of
            assert total[r] == pytest.approx(sum(w for (i, _), w in wanted.items() if i == first + r) + left_out)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_the_term_is_the_logarithm_of_the_smoothed_lift(seed: int) -> None:
    """Of the items of a medium; a place of -1 ends a history; items that are no neighbours get 0."""
    rng = np.random.default_rng(seed)
    num_of = rng.integers(0, 4, NUM_ITEMS)
    start = np.append(0, np.cumsum(num_of))
    item = np.concatenate([rng.permutation(NUM_ITEMS)[:n] for n in num_of] or [[]]).astype(np.int32)
    weight = rng.random(len(item)).astype(np.float32)
    total = np.array([weight[a:b].sum() for a, b in itertools.pairwise(start)]) + rng.integers(0, 3, NUM_ITEMS)
    num = rng.integers(1, 9, NUM_ITEMS)
    last = rng.integers(-1, NUM_ITEMS, (4, 5)).astype(np.int32)
    of_place = rng.random(5)
    low, high, smoothing = 2, 7, 1.5
    share = num / num.sum()
    out = np.zeros((4, high - low), np.float32)
    log_lift(Neighbours(start, item, weight, total.astype(np.float64), num), share, last, of_place, smoothing, low, out)
    for n, row in enumerate(last.tolist()):
        seen = row[: row.index(-1)] if -1 in row else row
        table = {
            i: dict(zip(item[start[i] : start[i + 1]].tolist(), weight[start[i] : start[i + 1]].tolist(), strict=True))
            for i in seen
        }
        rest = sum(
            of_place[p] * (smoothing + total[i] - sum(table[i].values())) / (total[i] + smoothing)
            for p, i in enumerate(seen)
        )
        for j in range(low, high):
            s = sum(of_place[p] * table[i].get(j, 0) / (total[i] + smoothing) for p, i in enumerate(seen))
            wanted = math.log1p(s / (rest * share[j])) if s else 0
            assert out[n, j - low] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
