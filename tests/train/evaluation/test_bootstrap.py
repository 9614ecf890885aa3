"""Intervals over users depend only on users and seed, have the right coverage, and are paired."""

import numpy as np
import pytest

from train.evaluation.bootstrap import bootstrap_means, with_intervals


def test_a_resample_is_users_drawn_with_replacement() -> None:
    """Compared with drawing rows and averaging them, one resample at a time."""
    values = np.random.default_rng(0).random((7, 3))
    found = bootstrap_means(values, 20, seed=5)
    rng = np.random.default_rng(5)
    for means in found:
        drawn = rng.integers(0, 7, 7)
        assert means == pytest.approx(values[drawn].mean(0))


def test_memory_bounds_change_no_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many users, a few resamples are drawn at a time."""
    values = np.random.default_rng(0).random((50, 2))
    whole = bootstrap_means(values, 33, seed=1)
    monkeypatch.setattr("train.evaluation.bootstrap._MAX_COUNTS", 200)
    assert bootstrap_means(values, 33, seed=1) == pytest.approx(whole, rel=1e-12)
    assert not np.allclose(bootstrap_means(values, 33, seed=2), whole)


def test_figures_of_the_same_users_are_paired() -> None:
    """A system that is better by the same amount for every user is better by that amount in every resample."""
    values = np.random.default_rng(1).random((40, 1))
    difference = bootstrap_means(values + 0.01, 200, seed=0) - bootstrap_means(values, 200, seed=0)
    assert difference == pytest.approx(0.01)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """95% intervals of the mean of 60 users, in 200 simulations: 95% ± 4.6 (three standard errors)."""
    values = (np.random.default_rng(4).exponential(size=(60, 200)) < 0.5).astype(float)
    figures = with_intervals(values.mean(0), bootstrap_means(values, 300, seed=0))
    assert all(figure.low <= figure.value <= figure.high for figure in figures)
    hits = sum(figure.low <= 1 - np.exp(-0.5) <= figure.high for figure in figures)
    assert 0.90 <= hits / 200 <= 0.996
