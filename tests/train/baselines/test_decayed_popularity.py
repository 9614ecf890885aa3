"""Counts that halve with time: each of them is that of the events before the asked second, and of no other."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_baselines import OFFSETS, Event, in_batches, watched

from train.baselines.popularity import DecayedPopularity, EventTimes
from train.terms.watched import Watched

DAY = 86_400
EVENTS = st.tuples(st.integers(0, 7), st.integers(-3 * DAY, 40 * DAY), st.just(float("nan")))
USERS = st.lists(st.lists(EVENTS, max_size=14), min_size=1, max_size=6)


def fitted(users: list[list[Event]], half_life: int) -> DecayedPopularity:
    def batches() -> Iterator[Watched]:
        return in_batches(users)

    return DecayedPopularity(EventTimes.of(batches, OFFSETS[-1]), OFFSETS, half_life)


@settings(max_examples=60)
@given(
    users=USERS,
    times=st.lists(st.integers(-5 * DAY, 60 * DAY), min_size=1, max_size=5),
    half_life=st.sampled_from([1, 3, 7, 30]),
    hidden=st.booleans(),
)
def test_a_count_is_the_sum_of_powers_of_one_half_of_the_ages(
    users: list[list[Event]], times: list[int], half_life: int, hidden: bool
) -> None:
    """Event by event, for times in any order. With a hidden time, at the end of training."""
    flat = [event for history in users for event in history]
    end = max((time for _, time, _ in flat), default=-1) + 1
    baseline, past = fitted(users, half_life), watched([[] for _ in times])
    for medium in (0, 1):
        found = baseline.scores(past, None if hidden else np.array(times), medium)
        for row, time in zip(found, times, strict=True):
            at = end if hidden else time
            for item, score in enumerate(row, start=OFFSETS[medium]):
                ages = [(at - s) / (half_life * DAY) for i, s, _ in flat if i == item and s < at]
                assert score == pytest.approx(sum(2.0**-age for age in ages), rel=1e-5, abs=1.1e-9)
                assert (score > 0) == bool(ages)


@settings(max_examples=40)
@given(users=USERS, time=st.integers(0, 40 * DAY), half_life=st.sampled_from([1, 30]), seed=st.integers(0, 99))
def test_events_at_the_targets_second_or_later_change_no_score(
    users: list[list[Event]], time: int, half_life: int, seed: int
) -> None:
    """Their items are permuted, and one event more lies at the target's own second: equal to the bit."""
    rng = np.random.default_rng(seed)
    later = [(u, e) for u, history in enumerate(users) for e, event in enumerate(history) if event[1] >= time]
    changed = [list(history) for history in users]
    for (u, e), (v, f) in zip(later, rng.permutation(later).tolist() if later else [], strict=True):
        changed[u][e] = (users[v][f][0], users[u][e][1], users[u][e][2])
    changed[0].append((3, time, float("nan")))
    asked, past = np.array([time]), watched([[]])
    for medium in (0, 1):
        scores = fitted(users, half_life).scores(past, asked, medium)
        assert np.array_equal(scores, fitted(changed, half_life).scores(past, asked, medium))


def test_items_of_long_ago_are_ordered_by_their_number() -> None:
    """After a thousand half-lives the counts are 0 in float64; the number of events before the time remains."""
    users: list[list[Event]] = [[(0, 0, 1.0), (1, 5, 1.0), (1, 9, 1.0), (2, 2_000 * DAY, 1.0)]]
    scores = fitted(users, 1).scores(watched([[]]), np.array([1_500 * DAY]), 0)[0]
    assert scores[1] > scores[0] > scores[2] == scores[3] == 0
