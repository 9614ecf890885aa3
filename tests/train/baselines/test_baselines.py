"""Every baseline compared with its definition, written as plain loops over lists."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfeat.kernels.factors import Factors, descend
from streamfeat.store.histories import Histories
from train.baselines.factors import fit_factors
from train.baselines.pairs import FrequentItems, ItemNeighbours, MarkovChain, Transitions
from train.baselines.popularity import Popularity, RecentPopularity, count_items
from train.baselines.ratings import MeanRating, UserItemBias
from train.terms.ratings import Units
from train.terms.watched import Watched

DAY = 86_400
OFFSETS = (0, 5, 8)  # two media
Event = tuple[int, int, float]  # item, time, rating

EVENTS = st.tuples(st.integers(0, 7), st.integers(0, 60 * DAY), st.sampled_from([math.nan, 1.0, 2.0, 4.0, 5.0]))
HISTORY = st.lists(EVENTS, max_size=14).map(lambda events: sorted(events, key=lambda event: event[1]))
USERS = st.lists(HISTORY, min_size=1, max_size=6)


def watched(users: list[list[Event]]) -> Watched:
    flat = [event for history in users for event in history]
    return Watched(
        np.append(0, np.cumsum([len(history) for history in users])).astype(np.int64),
        np.array([event[0] for event in flat], np.int64),
        np.array([event[1] for event in flat], np.int64),
        np.array([event[2] for event in flat], np.float32),
    )


def in_batches(users: list[list[Event]]) -> Iterator[Watched]:
    """Some users at a time, as `evaluate_steps` reads them."""
    for first in range(0, len(users), 2):
        yield watched(users[first : first + 2])


def counts_of(users: list[list[Event]]) -> Counter[int]:
    return Counter(item for history in users for item, _, _ in history)


def decay(num: int, half_life: float) -> list[float]:
    weights = [0.5 ** ((num - 1 - place) / half_life) for place in range(num)]
    return [weight / sum(weights) for weight in weights]


@settings(max_examples=30)
@given(users=USERS, past=USERS)
def test_popularity_counts_training_events(users: list[list[Event]], past: list[list[Event]]) -> None:
    """The same for every history."""
    baseline = Popularity(OFFSETS, count_items(lambda: in_batches(users), 8))
    counts = counts_of(users)
    for medium in (0, 1):
        expected = [counts[item] for item in range(OFFSETS[medium], OFFSETS[medium + 1])]
        assert baseline.scores(watched(past), None, medium).tolist() == [expected] * len(past)


@settings(max_examples=50)
@given(
    users=USERS,
    time=st.integers(-DAY, 200 * DAY),
    given_time=st.booleans(),
    bucket_days=st.sampled_from([1, 7]),
)
def test_recent_popularity_counts_the_thirty_days_before_the_targets_day(
    users: list[list[Event]], time: int, given_time: bool, bucket_days: int
) -> None:
    """The target's own day and later days do not count. With a hidden time, the last thirty days of training."""
    times = [event[1] for history in users for event in history] or [0]
    low, num_days = min(times), (max(times) - min(times)) // DAY + 1
    most = -(-num_days * 8 // bucket_days)
    baseline = RecentPopularity(lambda: in_batches(users), OFFSETS, low, max(times), max_table=most)
    width = math.ceil(num_days * 8 / -(-num_days * 8 // bucket_days))
    last = (time - low) // DAY // width if given_time else math.ceil(num_days / width)
    recent: Counter[int] = Counter()
    for history in users:
        for item, at, _ in history:
            if last - math.ceil(30 / width) <= (at - low) // DAY // width < last:
                recent[item] += 1
    counts = counts_of(users)
    scores = baseline.scores(watched([[]]), np.array([time]) if given_time else None, 0)[0]
    assert scores == pytest.approx([recent[i] + counts[i] / (sum(counts.values()) + 1) for i in range(5)])


@settings(max_examples=50)
@given(
    users=USERS,
    past=USERS,
    max_items=st.sampled_from([3, 100]),
    window=st.sampled_from([1, 4, 10]),
    backward=st.sampled_from([0.0, 0.5, 1.0]),
    half_life=st.sampled_from([0.5, 3.0]),
    smoothing=st.sampled_from([2.0, 20.0]),
)
def test_the_markov_chain_is_smoothed_counts_of_nearby_pairs(
    users: list[list[Event]],
    past: list[list[Event]],
    max_items: int,
    window: int,
    backward: float,
    half_life: float,
    smoothing: float,
) -> None:
    """T, P and the decayed mean, pair by pair. Items beyond `max_items` have no pairs and are ranked by popularity."""
    counts = counts_of(users)
    total = max(1, sum(counts.values()))
    kept = sorted(range(8), key=lambda item: (-counts[item], item))[:max_items]
    table: dict[tuple[int, int], float] = defaultdict(float)
    for history in users:
        for later in range(len(history)):
            for earlier in range(max(0, later - window), later):
                first, second = history[earlier][0], history[later][0]
                if first in kept and second in kept:
                    table[first, second] += 1 / (later - earlier)
                    table[second, first] += backward / (later - earlier)
    sums = [sum(table[i, j] for j in range(8)) for i in range(8)]
    items = FrequentItems.of(lambda: in_batches(users), OFFSETS, max_items)
    counted = Transitions.count(lambda: in_batches(users), items, window, backward)
    baseline = MarkovChain(counted, half_life, smoothing)
    for medium in (0, 1):
        found = baseline.scores(watched(past), None, medium)
        for history, row in zip(past, found, strict=True):
            for item, score in enumerate(row, start=OFFSETS[medium]):
                popularity = counts[item] / total
                expected = sum(
                    weight * (table[i, item] + smoothing * popularity) / (sums[i] + smoothing)
                    for weight, (i, _, _) in zip(decay(len(history), half_life), history, strict=True)
                )
                assert score == pytest.approx(expected if history else popularity, rel=1e-5, abs=1e-6)


@settings(max_examples=50)
@given(
    users=USERS,
    past=USERS,
    max_items=st.sampled_from([3, 100]),
    half_life=st.sampled_from([1.0, 3.0]),
    shrinkage=st.sampled_from([0.0, 5.0]),
    exponent=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_item_neighbours_are_similarities_that_add_up_to_one(
    users: list[list[Event]],
    past: list[list[Event]],
    max_items: int,
    half_life: float,
    shrinkage: float,
    exponent: float,
) -> None:
    """Columns of users that weigh 1 / (their number of items), each user's item counted once."""
    counts = counts_of(users)
    total = max(1, sum(counts.values()))
    kept = sorted(range(8), key=lambda item: (-counts[item], item))[:max_items]
    dots: dict[tuple[int, int], float] = defaultdict(float)
    for history in users:
        distinct = {item for item, _, _ in history}
        for i in distinct & set(kept):
            for j in distinct & set(kept):
                dots[i, j] += 1 / len(distinct)
    similar = {(i, j): dot / dots[j, j] ** exponent for (i, j), dot in list(dots.items()) if i != j}
    sums: dict[int, float] = defaultdict(float)
    for (i, _), similarity in similar.items():
        sums[i] += similarity
    items = FrequentItems.of(lambda: in_batches(users), OFFSETS, max_items)
    counted = ItemNeighbours.count(lambda: in_batches(users), items)
    baseline = replace(counted, half_life=half_life, shrinkage=shrinkage, exponent=exponent)
    for medium in (0, 1):
        found = baseline.scores(watched(past), None, medium)
        for history, row in zip(past, found, strict=True):
            for item, score in enumerate(row, start=OFFSETS[medium]):
                expected = 1e-9 * counts[item] / total + sum(
                    weight * similar[i, item] / sums[i] * counts[i] / (counts[i] + shrinkage)
                    for weight, (i, _, _) in zip(decay(len(history), half_life), history, strict=True)
                    if (i, item) in similar
                )
                assert score == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_only_recent_events_score_and_few_of_a_long_history_are_counted_as_neighbours() -> None:
    """An event 64 places back has almost no weight. Of 1,500 events the last 1,000 are paired, so time is linear for
    any length."""
    long = [(0, 0, math.nan)] * 500 + [(1, 1, math.nan)] * 999 + [(2, 2, math.nan)]
    items = FrequentItems.of(lambda: iter([watched([long])]), OFFSETS)
    baseline = ItemNeighbours.count(lambda: iter([watched([long])]), items)
    scores = baseline.scores(watched([[(1, 0, math.nan)], [(0, 0, math.nan)]]), None, 0)
    assert scores[0, 2] == pytest.approx(1.0)
    assert scores[0, 0] < 1e-8
    assert scores[1].max() < 1e-8


UNITS = Units(np.repeat([3.0, 2.0], (5, 3)), np.repeat([2.0, 0.5], (5, 3)))


@settings(max_examples=40)
@given(users=USERS, past=USERS, item=st.integers(0, 7), damping=st.sampled_from([1.0, 5.0]))
def test_biases_are_damped_means_of_what_the_other_leaves_over(
    users: list[list[Event]], past: list[list[Event]], item: int, damping: float
) -> None:
    """Five sweeps, user biases from 0. In the end the user's bias comes from the given history."""

    def deviation(event: Event) -> float:
        return (event[2] - UNITS.mean[event[0]]) / UNITS.std[event[0]]

    rated = [[event for event in history if not math.isnan(event[2])] for history in users]
    item_bias = [0.0] * 8

    def user_bias(history: list[Event]) -> float:
        return sum(deviation(event) - item_bias[event[0]] for event in history) / (len(history) + damping)

    for sweep in range(5):
        biases = [user_bias(history) if sweep else 0.0 for history in rated]
        left_over: dict[int, list[float]] = defaultdict(list)
        for bias, history in zip(biases, rated, strict=True):
            for event in history:
                left_over[event[0]].append(deviation(event) - bias)
        item_bias = [sum(left_over[i]) / (len(left_over[i]) + damping) for i in range(8)]
    baseline = UserItemBias.swept(lambda: in_batches(users), UNITS, damping)
    found = baseline.predict(watched(past), np.full(len(past), item))
    for history, rating in zip(past, found, strict=True):
        bias = user_bias([event for event in history if not math.isnan(event[2])])
        assert rating == pytest.approx(UNITS.mean[item] + UNITS.std[item] * (item_bias[item] + bias))


def test_one_pass_of_descent_equals_its_formulas() -> None:
    """Rating by rating; biases and factors are updated together from their values before."""
    rng = np.random.default_rng(0)
    offsets, item = np.array([0, 3, 3, 5]), np.array([0, 2, 0, 1, 2])
    rating = rng.standard_normal(5).astype(np.float32)
    ub, ib = rng.random(3, np.float32), rng.random(3, np.float32)
    uf, itf = rng.random((3, 4), np.float32), rng.random((3, 4), np.float32)
    expected = [array.astype(np.float64) for array in (ub, uf, ib, itf)]
    nub, nuf, nib, nif = expected
    for user in range(3):
        for e in range(offsets[user], offsets[user + 1]):
            i = item[e]
            error = rating[e] - nub[user] - nib[i] - nuf[user] @ nif[i]
            nub[user] += 0.05 * (error - 0.1 * nub[user])
            nib[i] += 0.05 * (error - 0.1 * nib[i])
            of_user, of_item = nuf[user].copy(), nif[i].copy()
            nuf[user] += 0.05 * (error * of_item - 0.1 * of_user)
            nif[i] += 0.05 * (error * of_user - 0.1 * of_item)
    descend(offsets, item, rating, 0.05, 0.1, Factors(ub, uf), Factors(ib, itf))
    for found, array in zip((ub, uf, ib, itf), expected, strict=True):
        assert found == pytest.approx(array, rel=1e-5, abs=1e-6)


def rank_one_ratings(seed: int, num_users: int) -> list[list[Event]]:
    """Ratings of medium 0 that only factors explain: taste times character, ±1 each."""
    rng = np.random.default_rng(seed)
    character = np.array([1, -1, 1, -1, 1])
    users = []
    for _ in range(num_users):
        taste = rng.choice([-1, 1])
        users.append([(int(item), 0, float(3 + taste * character[item])) for item in rng.permutation(5)[:4]])
    return users


def test_biased_svd_finds_tastes_of_users_that_it_was_not_fitted_on() -> None:
    """Means and biases do not explain these ratings; factors, from the given history, explain most."""
    units = Units(np.full(8, 3.0), np.ones(8))
    users, others = rank_one_ratings(0, 300), rank_one_ratings(1, 50)
    past, item = watched([history[:3] for history in others]), np.array([history[3][0] for history in others])
    rating = np.array([history[3][2] for history in others])
    errors = {}
    biases = UserItemBias.swept(lambda: in_batches(users), units, 5.0)
    svd = fit_factors(lambda: in_batches(users), units, len(users), 0, None)
    for baseline in (MeanRating(units), biases, svd):
        errors[baseline.name] = float(np.sqrt(((baseline.predict(past, item) - rating) ** 2).mean()))
    assert errors["mean_rating"] == pytest.approx(1.0)
    assert errors["user_item_bias"] > 0.9
    assert errors["biased_svd"] < 0.5


def test_a_user_without_ratings_gets_the_items_mean() -> None:
    """Without ratings in the history nothing is known about the user."""
    users: list[list[Event]] = [[(0, 0, 5.0), (1, 0, 4.0)], [(0, 1, 5.0)]]
    baseline = fit_factors(lambda: in_batches(users), UNITS, 2, 0, None)
    empty, other = baseline.predict(watched([[], [(1, 0, math.nan)]]), np.array([0, 0]))
    assert empty == other
    assert 3.0 < empty < 5.0


def test_planned_events_and_those_after_the_stop_are_not_watched() -> None:
    """Status 0 is planned. A user may have no event left."""
    histories = Histories(
        np.array([0, 3, 5, 5]), np.arange(5), np.arange(5) * 10, np.array([1, 2, 3, np.nan, 5], np.float32),
        np.array([2, 0, 1, 0, 4], np.uint8), np.full(5, np.nan, np.float32),
    )  # fmt: skip
    found = Watched.of(histories, np.array([3, 1, 0]))
    assert found.offsets.tolist() == [0, 2, 2, 2]
    assert found.item.tolist() == [0, 2]
    picked = Watched.of(histories, np.array([9, 9, 9])).take(np.array([1, 2, 0, 1]))
    assert picked.offsets.tolist() == [0, 1, 1, 3, 4]
    assert picked.item.tolist() == [4, 0, 2, 4]
    assert picked.last(1).item.tolist() == [4, 2, 4]
    assert Watched.of(histories, np.array([9, 9, 9])).rated().offsets.tolist() == [0, 2, 3, 3]
