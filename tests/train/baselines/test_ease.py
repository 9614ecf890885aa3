"""EASE compared with its closed form in dense numpy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_baselines import OFFSETS, USERS, Event, counts_of, decay, in_batches, watched

from train.baselines import ease
from train.baselines.ease import Ease, fit_ease


def dense(users: list[list[Event]], damping: float) -> np.ndarray:
    """(8, 8): B over the items with more than one event, at least one item; 0 for the others."""
    counts = counts_of(users)
    kept = sorted(range(8), key=lambda item: (-counts[item], item))[: max(1, sum(n > 1 for n in counts.values()))]
    x = np.zeros((len(users), 8))
    for user, history in enumerate(users):
        for item, _, _ in history:
            x[user, item] = 1
    of_kept = x[:, kept]
    p = np.linalg.inv(of_kept.T @ of_kept + damping * np.eye(len(kept)))
    found = np.zeros((8, 8))
    found[np.ix_(kept, kept)] = np.eye(len(kept)) - p / np.diag(p)
    np.fill_diagonal(found, 0)
    return found


@settings(max_examples=40, deadline=None)
@given(users=USERS, past=USERS, half_life=st.sampled_from([1.0, 6.0, math.inf]))
def test_scores_are_those_of_the_closed_form(
    users: list[list[Event]], past: list[list[Event]], half_life: float
) -> None:
    """B = I - P / diag(P) with a zero diagonal. Of an item that occurs twice in the history the last time counts."""
    fitted = fit_ease(lambda: in_batches(users), OFFSETS, lambda of: float(of.half_life == half_life))
    assert isinstance(fitted, Ease)
    assert fitted.half_life == half_life
    b = dense(users, fitted.damping)
    for medium in (0, 1):
        found = fitted.scores(watched(past), None, medium)
        for history, row in zip(past, found, strict=True):
            num = len(history)
            weights = [1 / max(num, 1)] * num if math.isinf(half_life) else decay(num, half_life)
            last = {item: weight for (item, _, _), weight in zip(history, weights, strict=True)}
            for item, score in enumerate(row, start=OFFSETS[medium]):
                expected = sum(weight * b[i, item] for i, weight in last.items())
                assert score == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_damping_is_chosen_on_the_most_frequent_items_and_all_are_solved_with_it() -> None:
    """With 3 items to tune on, the fitted table still holds all 8."""
    users: list[list[Event]] = [[(i, 0, 1.0) for i in (0, 1, 2, first)] for first in range(3, 8)] * 3
    seen = []

    def measure(of: Ease) -> float:
        seen.append(of.table.shape)
        return -abs(of.damping - 30)

    fitted = fit_ease(lambda: in_batches(users), OFFSETS, measure, tuned_items=3)
    assert isinstance(fitted, Ease)
    assert set(seen) == {(3, 3)}
    assert fitted.damping == 30
    assert fitted.table == pytest.approx(dense(users, 30), rel=1e-4, abs=1e-6)


def test_a_table_that_memory_or_the_limit_does_not_allow_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes for each pair of items that were watched more than once."""
    users: list[list[Event]] = [[(i, 0, 1.0) for i in range(7)]] * 2 + [[(7, 0, 1.0)]]
    monkeypatch.setattr(ease, "available_bytes", lambda device: 20 * 7**2)
    assert isinstance(fit_ease(lambda: in_batches(users), OFFSETS, None), Ease)
    monkeypatch.setattr(ease, "available_bytes", lambda device: 20 * 7**2 - 1)
    assert "memory for 7 items" in str(fit_ease(lambda: in_batches(users), OFFSETS, None))
    monkeypatch.setattr(ease, "MAX_ITEMS", 6)
    assert "7 items" in str(fit_ease(lambda: in_batches(users), OFFSETS, None))
