"""When a run needs which shards, compared with a naive twin; and the smallest limit has room for every batch."""

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from reference_objectives import epoch_batches

from streamfeat.live.schedule import Schedule, max_shards_of_a_batch, needs
from streamfeat.store.manifest import SplitCounts


@st.composite
def runs(draw: st.DrawFn) -> tuple[SplitCounts, dict[str, Any]]:
    chunk = draw(st.sampled_from([1, 2, 3, 4, 8]))
    counts = SplitCounts(
        users=1, events=1, tokens=1, windows=draw(st.one_of(st.integers(1, 30), st.integers(1, 700))),
        chunk_windows=chunk, shard_windows=chunk * draw(st.sampled_from([1, 2, 3, 5])), packings=0,
    )  # fmt: skip
    batch = draw(st.sampled_from([1, 2, 3, 5, 6, 8, 16, 24, 32, 36, 64, 96, 250]))
    return counts, {"seed": draw(st.integers(0, 2**63 - 1)), "batch_windows": batch}


def shards_by_position(counts: SplitCounts, run: dict[str, Any], epochs: int) -> list[set[tuple[int, int]]]:
    """The (packing, shard) pairs that each global batch reads."""
    reads = []
    for epoch in range(epochs):
        for batch in epoch_batches(
            split="training", epoch=epoch, num_windows=counts.windows, chunk_windows=counts.chunk_windows,
            shard_windows=counts.shard_windows, **run,
        ):  # fmt: skip
            reads.append({(epoch, window // counts.shard_windows) for window in batch if window >= 0})
    return reads


@given(drawn=runs(), data=st.data())
@settings(max_examples=150)
def test_every_shard_is_needed_from_its_first_read_to_its_last(
    drawn: tuple[SplitCounts, dict[str, Any]], data: st.DataObject
) -> None:
    """Over three epochs, from any start to any end; in the order of first use; each once."""
    counts, run = drawn
    reads = shards_by_position(counts, run, 3)
    start = data.draw(st.integers(0, len(reads) - 1))
    stop = data.draw(st.integers(start + 1, len(reads)))
    found = list(needs(counts, start=start, stop=stop, **run))
    assert [need.number for need in found] == list(range(len(found)))
    assert all(one.first_position <= other.first_position for one, other in pairwise(found))
    assert {(need.packing, need.shard) for need in found} == set().union(*reads[start:stop])
    assert len({(need.packing, need.shard) for need in found}) == len(found)
    for need in found:
        reading = [p for p in range(start, len(reads)) if (need.packing, need.shard) in reads[p]]
        assert need.first_position == reading[0]
        # Chunks that are first read behind `stop` do not count; what a batch of the run reads does, to its end.
        assert max(p for p in reading if p < stop) <= need.last_position <= reading[-1]


@given(drawn=runs())
@settings(max_examples=300)
def test_no_batch_ever_needs_more_shards_than_the_least_cap_holds(drawn: tuple[SplitCounts, dict[str, Any]]) -> None:
    """At each position of two epochs: the shards between their first and last use."""
    counts, run = drawn
    stop = 2 * -(-counts.windows // run["batch_windows"])
    found = list(needs(counts, start=0, stop=stop, **run))
    most = max(sum(need.first_position <= p <= need.last_position for need in found) for p in range(stop))
    assert most <= max_shards_of_a_batch(counts, run["batch_windows"])


def test_the_usual_cap_is_nine_shards() -> None:
    """Batches of 64 windows, shards of 32 chunks: two groups of four shards, and that of the short chunk."""
    counts = SplitCounts(users=1, events=1, tokens=1, windows=10**6, chunk_windows=64, shard_windows=2048, packings=0)
    assert {max_shards_of_a_batch(counts, batch) for batch in (1, 16, 64, 256, 1024)} == {9}


@given(drawn=runs(), start=st.integers(0, 50))
@settings(max_examples=50)
def test_a_schedule_is_its_needs_by_number_and_by_shard(drawn: tuple[SplitCounts, dict[str, Any]], start: int) -> None:
    """In any order of calls; None for a shard that no batch reads."""
    counts, run = drawn
    stop = start + 20
    found = list(needs(counts, start=start, stop=stop, **run))
    by_shard, by_number = (Schedule(counts, start=start, stop=stop, **run) for _ in range(2))
    for need in reversed(found):
        assert by_shard.of(need.packing, need.shard) == need
        assert by_number.at(need.number) == need
    assert by_number.at(len(found)) is None
    assert by_shard.of(found[-1].packing + 1, 0) is None
    assert by_shard.of(found[0].packing - 1, 0) is None
