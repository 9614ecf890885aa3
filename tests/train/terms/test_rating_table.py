"""The table of training ratings against its definition, written as plain loops."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfeat.schema import FloatCode, Schema
from streamfeat.store.manifest import Manifest, MediumScales
from train.terms import ratings
from train.terms.ratings import rating_table
from train.terms.watched import Watched

MEANS, STDS = (3.0, 6.0), (1.5, 2.0)  # of two media: items 0 to 4, and 5 to 7
Rating = tuple[int, float]  # item, rating
USERS = st.lists(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from([math.nan, 1.0, 2.0, 4.0, 5.0])), max_size=14),
    min_size=1,
    max_size=7,
)


def manifest(num_users: int, num_ratings: int) -> Manifest:
    schema = Schema(
        media=("film", "book"), medium_offsets=(0, 5, 8), num_users=num_users, window_len=8, time_dtype="uint32",
        time_origin=0, rating=FloatCode(dtype="float32"), completion=FloatCode(dtype="float32"), rating_max=10.0,
    )  # fmt: skip
    scales = tuple(
        MediumScales(
            medium=name, items=n, events=0, targets=0, ratings=num, watch_entropy=0, rating_mean=mean,
            rating_variance=std**2,
        )
        for name, n, num, mean, std in zip(schema.media, (5, 3), (num_ratings, 0), MEANS, STDS, strict=True)
    )  # fmt: skip
    return Manifest.model_construct(data_schema=schema, num_items=8, num_users=num_users, scales=scales)


def batches(users: list[list[Rating]], at_a_time: int) -> Iterator[Watched]:
    for first in range(0, len(users), at_a_time):
        part = users[first : first + at_a_time]
        flat = [event for history in part for event in history]
        yield Watched(
            np.append(0, np.cumsum([len(history) for history in part])).astype(np.int64),
            np.array([item for item, _ in flat], np.int64),
            np.zeros(len(flat), np.int64),
            np.array([rating for _, rating in flat], np.float32),
        )


def fitted(users: list[list[Rating]]) -> tuple[list[float], list[int], list[float]]:
    """Sums and numbers by item, biases by user."""
    rated = [
        [(item, (rating - MEANS[item >= 5]) / STDS[item >= 5]) for item, rating in history if not math.isnan(rating)]
        for history in users
    ]
    bias = [0.0] * len(users)
    for sweep in range(16):
        sums, nums = [0.0] * 8, [0] * 8
        for user, history in enumerate(rated):
            for item, deviation in history:
                sums[item] += deviation - bias[user]
                nums[item] += 1
        if sweep < 15:
            means = [total / (num + 5) for total, num in zip(sums, nums, strict=True)]
            bias = [sum(x - means[item] for item, x in history) / (len(history) + 5) for history in rated]
    return sums, nums, bias


@settings(deadline=None, max_examples=30)
@given(users=USERS, at_a_time=st.integers(1, 4))
def test_the_table_is_that_of_fifteen_alternating_sweeps(users: list[list[Rating]], at_a_time: int) -> None:
    """Whatever the users that are read at a time; deviations in the units of each medium."""
    table = rating_table(lambda: batches(users, at_a_time), manifest(len(users), 100))
    for found, expected in zip(table[:3], fitted(users), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (table.mean_M.tolist(), table.std_M.tolist()) == ([*MEANS], [*STDS])


def test_ratings_that_do_not_fit_into_memory_are_read_again_and_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In every sweep, one batch at a time."""
    rng = np.random.default_rng(0)
    users = [[(int(i), float(r)) for i, r in zip(*rng.integers(0, 8, (2, 9)), strict=True)] for _ in range(20)]
    reads = []

    def read() -> Iterator[Watched]:
        reads.append(1)
        return batches(users, 3)

    in_memory = rating_table(read, manifest(20, 180))
    assert len(reads) == 1
    monkeypatch.setattr(ratings, "MOST_IN_MEMORY", 179)
    read_again = rating_table(read, manifest(20, 180))
    assert len(reads) > 30
    for first, second in zip(in_memory, read_again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_without_ratings_the_table_is_empty() -> None:
    """Means of 0, as many items and users as the dataset has."""
    table = rating_table(lambda: batches([[(1, math.nan)], []], 1), manifest(2, 0))
    assert table.sum_V.tolist() == table.num_V.tolist() == [0] * 8
    assert table.bias_U.tolist() == [0, 0]
