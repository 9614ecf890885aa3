"""The order of windows, compared with its naive twin, and its promises."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_objectives import epoch_batches

from streamfeat.errors import ConfigError
from streamfeat.stream.epoch_plan import Decode, EpochPlan, Make
from streamfeat.stream.order import EpochOrder, lanes_of_rank, num_lanes, steps_per_epoch

Shape = dict[str, Any]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Epochs of any size: no window, one window, no whole chunk, no whole round, many shards."""
    chunk = draw(st.sampled_from([1, 2, 3, 4, 8]))
    return {
        "seed": draw(st.integers(0, 2**63 - 1)),
        "split": draw(st.sampled_from(["training", "validation"])),
        "epoch": draw(st.integers(0, 5)),
        "num_windows": draw(st.one_of(st.integers(0, 30), st.integers(0, 700))),
        "chunk_windows": chunk,
        "shard_windows": chunk * draw(st.sampled_from([1, 2, 5])),
        "batch_windows": draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 36, 64, 96, 250])),
    }


def global_batches(shape: Shape, world_size: int = 1) -> list[list[int]]:
    """The global batches with this number of ranks; each window is put in its slot."""
    order = EpochOrder(**shape)
    batches = np.full((order.num_steps, shape["batch_windows"]), -7)
    for rank in range(world_size):
        lanes = lanes_of_rank(shape["batch_windows"], rank, world_size)
        for step in range(order.num_steps):
            slots = order.slots(lanes).reshape(-1)
            assert (batches[step][slots] == -7).all(), "a slot is filled twice"
            batches[step][slots] = order.batch(step, lanes).reshape(-1)
    return batches.tolist()


@given(shape=shapes())
@settings(max_examples=150)
def test_the_order_is_its_naive_twins(shape: Shape) -> None:
    """Exactly pipeline §8: shards four at a time, chunks and windows permuted, rounds dealt to lanes."""
    assert global_batches(shape) == epoch_batches(**shape)


@given(shape=shapes())
@settings(max_examples=150)
def test_every_window_is_delivered_exactly_once_per_epoch_in_even_steps(shape: Shape) -> None:
    """ceil(windows / B) steps, every window once, empty windows only at the end."""
    batches = global_batches(shape)
    assert len(batches) == steps_per_epoch(shape["num_windows"], shape["batch_windows"])
    assert len(batches) == -(-shape["num_windows"] // shape["batch_windows"])
    delivered = [window for batch in batches for window in batch if window >= 0]
    assert sorted(delivered) == list(range(shape["num_windows"]))
    assert all(len(batch) == shape["batch_windows"] for batch in batches)


@given(shape=shapes(), data=st.data())
@settings(max_examples=100)
def test_global_batches_are_the_same_for_every_world_size(shape: Shape, data: st.DataObject) -> None:
    """For each world size that divides the lanes; the ranks' rows are ordered by lane."""
    lanes = num_lanes(shape["batch_windows"])
    world_size = data.draw(st.sampled_from([size for size in range(1, lanes + 1) if lanes % size == 0]))
    assert global_batches(shape, world_size) == global_batches(shape)


@given(shape=shapes())
@settings(max_examples=60)
def test_a_full_chunk_of_a_complete_round_belongs_to_one_lane(shape: Shape) -> None:
    """So one rank decodes it, and reads it to its end before the lane's next chunk."""
    order = EpochOrder(**shape)
    lanes = np.arange(order.num_lanes)
    dealt = order.lane_windows(lanes, 0, order.num_rounds * shape["chunk_windows"]) // shape["chunk_windows"]
    rounds = dealt.reshape(order.num_lanes, order.num_rounds, shape["chunk_windows"])
    assert (rounds == rounds[:, :, :1]).all()
    assert len(np.unique(rounds[:, :, 0])) == order.num_lanes * order.num_rounds


def test_lanes_read_inside_a_few_shards_at_a_time() -> None:
    """The chunks of four shards are permuted together: a prefix of the order stays in few shards, and each
    epoch takes them in another order."""
    shape: Shape = {"seed": 5, "split": "training", "num_windows": 64 * 16, "chunk_windows": 4,
                    "shard_windows": 16, "batch_windows": 16}  # fmt: skip
    orders = [EpochOrder(epoch=epoch, **shape) for epoch in range(3)]
    for order in orders:
        for group in order.chunks.reshape(-1, 16) // 4:
            assert len(set(group.tolist())) == 4
        assert sorted(order.chunks.tolist()) == list(range(256))
    assert len({tuple(order.chunks.tolist()) for order in orders}) == 3
    assert any((np.diff(order.chunks) < 0).any() for order in orders)


def test_lanes_follow_from_the_batch_size_alone() -> None:
    """The first of 24, 16, 12, 8, 6, 4, 3, 2, 1 that divides the batch size."""
    expected = {1: 1, 2: 2, 5: 1, 6: 6, 9: 3, 10: 2, 20: 4, 24: 24, 32: 16, 36: 12, 40: 8, 48: 24, 64: 16, 250: 2}
    assert {batch: num_lanes(batch) for batch in expected} == expected


def test_a_world_size_that_does_not_divide_the_lanes_is_refused_with_those_that_fit() -> None:
    """An error of configuration that names the remedy."""
    with pytest.raises(ConfigError, match=r"3 ranks .* 64 windows .* 16 lanes; use a world size of 1, 2, 4, 8, 16"):
        lanes_of_rank(64, 0, 3)
    assert lanes_of_rank(64, 1, 4).tolist() == [1, 5, 9, 13]


@given(shape=shapes().filter(lambda shape: shape["num_windows"] > 0), data=st.data())
@example(shape={"seed": 0, "split": "training", "epoch": 0, "num_windows": 700, "chunk_windows": 1,
                "shard_windows": 5, "batch_windows": 96}, data=None)  # fmt: skip
@settings(max_examples=150)
def test_a_plan_decodes_each_chunk_once_and_never_over_one_that_is_still_read(
    shape: Shape, data: st.DataObject | None
) -> None:
    """Following the plan, every batch finds its windows in the pool. A slot is reused only after the batches that read
    it. Decoding uses at most two halves of the pool."""
    lanes = num_lanes(shape["batch_windows"])
    world_size, first_step, rank = 1, 0, 0
    order = EpochOrder(**shape)
    if data is not None:
        world_size = data.draw(st.sampled_from([size for size in range(1, lanes + 1) if lanes % size == 0]))
        rank = data.draw(st.integers(0, world_size - 1))
        first_step = data.draw(st.integers(0, order.num_steps - 1))
    own = lanes_of_rank(shape["batch_windows"], rank, world_size)
    plan = EpochPlan(order, own)
    pool: dict[int, int] = {}  # slot → chunk
    read_until: dict[int, int] = {}  # slot → last step that read it
    decoded: list[int] = []
    steps: list[int] = []
    for operation in plan.operations(first_step, lambda chunk: True):
        if isinstance(operation, Decode):
            assert 0 <= operation.slot < plan.num_slots
            assert read_until.get(operation.slot, -1) <= operation.after_step < first_step + max(len(steps), 1)
            pool[operation.slot] = operation.chunk
            decoded.append(operation.chunk)
            continue
        steps.append(operation.step)
        _check_made(operation, order, own, pool)
        read_until |= dict.fromkeys(operation.pool_slots, operation.step)
    assert steps == list(range(first_step, order.num_steps))
    assert len(set(decoded)) == len(decoded)


@given(shape=shapes().filter(lambda shape: shape["num_windows"] > 0), salt=st.integers(0, 9))
@settings(max_examples=100)
def test_a_chunk_that_is_not_there_is_decoded_right_before_the_batch_that_needs_it(shape: Shape, salt: int) -> None:
    """So waiting for it does not delay batches whose chunks exist. Slots and batches are the same."""
    order = EpochOrder(**shape)
    own = lanes_of_rank(shape["batch_windows"], 0, 1)
    absent = {chunk for chunk in range(len(order.chunks)) if (chunk * 7 + salt) % 3 == 0}
    pool: dict[int, int] = {}
    undelayed: set[int] = set()
    for operation in EpochPlan(order, own).operations(0, lambda chunk: chunk not in absent):
        if isinstance(operation, Decode):
            pool[operation.slot] = operation.chunk
            undelayed |= {operation.chunk} & absent
            continue
        _check_made(operation, order, own, pool)
        needed = set((operation.windows[operation.windows >= 0] // order.chunk_windows).tolist())
        assert undelayed <= needed
        undelayed.clear()


@given(shape=shapes())
@settings(max_examples=100)
def test_the_steps_of_a_chunk_are_those_whose_batches_read_it(shape: Shape) -> None:
    """First and last step, against every batch of the epoch."""
    order = EpochOrder(**shape)
    reads: dict[int, list[int]] = {}
    for step, batch in enumerate(epoch_batches(**shape)):
        for window in batch:
            if window >= 0:
                reads.setdefault(window // shape["chunk_windows"], []).append(step)
    firsts, lasts = order.chunk_steps()
    assert firsts.tolist() == [min(reads[chunk]) for chunk in order.chunks.tolist()]
    assert lasts.tolist() == [max(reads[chunk]) for chunk in order.chunks.tolist()]


def _check_made(made: Make, order: EpochOrder, lanes: Any, pool: dict[int, int]) -> None:
    np.testing.assert_array_equal(made.windows, order.batch(made.step, lanes).reshape(-1))
    np.testing.assert_array_equal(made.batch_slots, order.slots(lanes).reshape(-1))
    for window, row in zip(made.windows.tolist(), made.rows.tolist(), strict=True):
        if window < 0:
            assert row == -1
            continue
        slot, place = divmod(row, order.chunk_windows)
        assert slot in made.pool_slots
        assert pool[slot] * order.chunk_windows + place == window
