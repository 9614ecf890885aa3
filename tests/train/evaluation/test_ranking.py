"""Ranks, the figures that follow from them, and coverage, against plain sorting."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.ranking import Coverage, figure_names, figure_values, first_items, target_ranks

# Few distinct scores, so that ties are the rule; -inf is what was left out.
SCORES = st.integers(1, 9).flatmap(
    lambda num_items: st.lists(
        st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0]), min_size=num_items, max_size=num_items),
        min_size=1, max_size=4,
    )
)  # fmt: skip


@given(scores=SCORES, data=st.data())
def test_a_rank_is_the_mean_place_of_equal_scores(scores: list[list[float]], data: st.DataObject) -> None:
    """An item's places in the list sorted with ties in its favour and with ties against it, averaged."""
    targets = [data.draw(st.integers(0, len(row) - 1)) for row in scores]
    ranks = target_ranks(np.array(scores), np.array(targets))
    for row, target, rank in zip(scores, targets, ranks, strict=True):
        first = sorted(range(len(row)), key=lambda i: (-row[i], i != target)).index(target) + 1
        last = sorted(range(len(row)), key=lambda i: (-row[i], i == target)).index(target) + 1
        assert rank == (first + last) / 2


def test_a_constant_score_ranks_like_chance() -> None:
    """A system that says nothing must not look good because its ties are broken in the target's favour."""
    assert target_ranks(np.zeros((1, 101)), np.array([3])).tolist() == [51.0]


@given(scores=SCORES, data=st.data())
def test_the_first_items_are_those_of_a_stable_sort(scores: list[list[float]], data: st.DataObject) -> None:
    """By score, descending, equal ones by id."""
    k = data.draw(st.integers(1, len(scores[0])))
    expected = [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in scores]
    assert first_items(np.array(scores), k).tolist() == expected


def test_figures_follow_from_the_rank_alone() -> None:
    """Rank 1, 3 and 2.5 with cut-offs 1 and 3: written out."""
    assert figure_names((1, 3)) == ("hr@1", "hr@3", "ndcg@1", "ndcg@3", "mrr")
    found = figure_values(np.array([1.0, 3.0, 2.5, 4.0]), (1, 3))
    expected = [
        [1, 1, 1, 1, 1],
        [0, 1, 0, 0.5, 1 / 3],
        [0, 1, 0, 1 / math.log2(3.5), 0.4],
        [0, 0, 0, 0, 0.25],
    ]
    assert found == pytest.approx(np.array(expected))


def test_coverage_is_the_union_of_what_users_are_shown() -> None:
    """Whatever the batches, and what is left out (-inf) is shown to nobody."""
    rng = random.Random(3)
    scores = np.array([[rng.choice([-math.inf, 0.0, 1.0, 2.0]) for _ in range(12)] for _ in range(9)])
    together, apart = Coverage(12, (1, 4, 100)), Coverage(12, (1, 4, 100))
    together.add(scores)
    for row in scores:
        apart.add(row[None])
    for index, k in enumerate((1, 4, 100)):
        expected = set()
        for row in scores:
            expected |= {i for i in sorted(range(12), key=lambda i: (-row[i], i))[:k] if row[i] > -math.inf}
        assert set(np.flatnonzero(together.covered_KV[index])) == expected
    assert (together.covered_KV == apart.covered_KV).all()
    assert not together.covered_KV[0].all()
