"""Kernels of the build equal their obvious twins."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import reference_build as reference
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.builder.numbering import IntCoder
from streamfeat.kernels.draws import draw_state, draws, permutation, to_below, to_unit
from streamfeat.kernels.hash_table import collect_levels
from streamfeat.kernels.pack import CLS_SOURCE, LaidUsers, gather_tokens, token_sources
from streamfeat.kernels.scatter import counting_sort, partition_of_ints, partition_of_texts, scatter_rows
from streamfeat.kernels.sort import count_ties_and_repeats, kept_starts, mark_duplicates, sort_histories
from streamfeat.store.array_files import text_arrays, texts_of

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)


@given(st.integers(0, 2**63 - 1), st.lists(UINT64, max_size=4), st.integers(0, 1000), st.integers(1, 20))
def test_draws_equal_the_documented_scheme(seed: int, counters: list[int], first: int, num: int) -> None:
    """splitmix64(seed), then one splitmix64 of state xor counter for each counter."""
    expected = [reference.draw(seed, *counters, first + i) for i in range(num)]
    assert draws(seed, *counters, first=first, num=num).tolist() == expected
    order = permutation(seed, *counters, first=first, num=num)
    assert order.tolist() == sorted(range(num), key=lambda i: (expected[i], i))


def test_draws_have_these_values() -> None:
    """Test vectors of docs/format.md: other implementations check against them."""
    assert draws(20221221, 2, num=3).tolist() == [reference.draw(20221221, 2, k) for k in range(3)]
    assert reference.splitmix64(0) == 0xE220A8397B1DCDAF  # published first output of splitmix64 from state 0
    assert to_unit(np.uint64(2**64 - 1)) < 1.0
    assert to_below(np.uint64(2**64 - 1), 10) == 9
    assert to_below(np.uint64(0), 10) == 0


@given(st.lists(st.tuples(INT64, st.integers(0, 3)), max_size=300))
def test_codes_go_by_first_appearance(pairs: list[tuple[int, int]]) -> None:
    """Equal (key, tag) pairs get equal numbers, also after the table grew."""
    coder = IntCoder()
    numbers: dict[tuple[int, int], int] = {}
    expected = [numbers.setdefault(pair, len(numbers)) for pair in pairs]
    keys, tags = np.array([k for k, _ in pairs], np.int64), np.array([t for _, t in pairs], np.int32)
    half = len(pairs) // 2
    coded = [*coder.code(keys[:half], tags[:half]), *coder.code(keys[half:], tags[half:])]
    assert coded == expected
    assert list(zip(coder.keys.tolist(), coder.tags.tolist(), strict=True)) == list(numbers)


def test_the_table_of_codes_grows() -> None:
    """Far more keys than it starts with."""
    coder = IntCoder()
    keys = np.arange(50_000, dtype=np.int64) * 7919
    assert coder.code(keys, np.zeros(50_000, np.int32)).tolist() == list(range(50_000))
    assert coder.code(keys[::-1].copy(), np.zeros(50_000, np.int32)).tolist() == list(range(50_000))[::-1]


@given(st.lists(st.one_of(INT64.map(str), st.text(max_size=8)), min_size=1, max_size=60), st.integers(0, 6))
def test_partitions_follow_from_the_raw_id_alone(ids: list[str], log_partitions: int) -> None:
    """Integer ids by value, other texts by their UTF-8 bytes."""
    num, state = 1 << log_partitions, draw_state(5, 1)
    out = np.empty(len(ids), np.int32)
    texts = [i for i in ids if not reference.is_canonical_int(i)]
    array = pa.array(texts, pa.string())
    arrays = text_arrays("t", array)
    text_out = np.empty(len(texts), np.int32)
    partition_of_texts(arrays["t_offsets"].astype(np.int32), arrays["t_bytes"].copy(), state, num, text_out)
    assert text_out.tolist() == [reference.partition_of(t, 5, num) for t in texts]
    assert texts_of(arrays, "t").to_pylist() == texts
    ints = np.array([int(i) for i in ids if reference.is_canonical_int(i)], np.int64)
    out = np.empty(len(ints), np.int32)
    partition_of_ints(ints, state, num, out)
    assert out.tolist() == [reference.partition_of(str(i), 5, num) for i in ints.tolist()]


@given(st.lists(st.integers(0, 7), max_size=100))
def test_the_counting_sort_is_stable(groups: list[int]) -> None:
    """Rows of a group stay in input order."""
    starts, places = np.zeros(9, np.int64), np.empty(len(groups), np.int64)
    counting_sort(np.array(groups, np.int32), starts, places)
    moved = np.empty(len(groups), np.int64)
    scatter_rows(np.arange(len(groups)), places, moved)
    assert moved.tolist() == sorted(range(len(groups)), key=lambda i: groups[i])
    assert starts.tolist() == [sum(g < k for g in groups) for k in range(9)]


EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9), st.integers(0, 4)), max_size=120)


@given(EVENTS, st.sampled_from([1, 10**9, 2**37]))
def test_histories_equal_a_stable_sort_with_the_last_duplicate_kept(
    events: list[tuple[int, int, int, int]], spread: int
) -> None:
    """By (user, time, input order); of equal (user, item, time) the last stays; ties and repeats are counted."""
    users, times, items, statuses = (np.array([e[k] for e in events], np.int64) for k in range(4))
    times = times * spread
    starts, order = np.zeros(6, np.int64), np.empty(len(events), np.int64)
    assert sort_histories(users.astype(np.int32), times, starts, order) == 0
    expected = sorted(range(len(events)), key=lambda i: (users[i], times[i], i))
    assert order.tolist() == expected
    keep = np.empty(len(events), np.uint8)
    mark_duplicates(items[order].astype(np.int32), times[order], starts, keep)
    rows = [(users[i], times[i], items[i]) for i in expected]
    assert keep.tolist() == [row not in rows[k + 1 :] for k, row in enumerate(rows)]
    kept = order[keep == 1]
    offsets = np.empty_like(starts)
    kept_starts(starts, keep, offsets)
    assert np.diff(offsets).tolist() == [int((users[kept] == u).sum()) for u in range(5)]
    tally = np.zeros(3, np.int64)
    count_ties_and_repeats(items[kept].astype(np.int32), times[kept], statuses[kept].astype(np.uint8), offsets, 0,
                           np.full(10, -1, np.int32), tally)  # fmt: skip
    tied = targets = repeats = 0
    for k, i in enumerate(kept):
        tied += any(users[j] == users[i] and times[j] == times[i] and j != i for j in kept)
        if statuses[i]:
            earlier = [items[j] for j in kept[:k] if users[j] == users[i] and statuses[j]]
            targets, repeats = targets + 1, repeats + (items[i] in earlier)
    assert tally.tolist() == [tied, targets, repeats]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 40), st.integers(1, 30), st.integers(2, 6))
def test_tokens_of_a_range_come_from_the_right_events(
    lengths: list[int], low: int, num_tokens: int, window_len: int
) -> None:
    """Any range of the stream equals that range of the whole stream; CLS first where the crop begins there."""
    sizes = np.array(lengths, np.int64)
    crops = np.arange(len(sizes), dtype=np.int64) % 2  # every other history lacks its CLS
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    first_events = starts * 10
    users = np.arange(len(sizes), dtype=np.int64) + 3
    whole = [(int(u), int(c + t), int(f)) for u, c, n, f in zip(users, crops, sizes, first_events, strict=True)
             for t in range(n)]  # fmt: skip
    sources = np.full(num_tokens, -2, np.int64)
    out_user, out_position = np.full(num_tokens, 99, np.uint32), np.full(num_tokens, 99, np.int64)
    laid = LaidUsers(users, crops, sizes)
    token_sources(laid, starts, first_events, low, window_len, sources, out_user, out_position)
    for t in range(num_tokens):
        if low + t >= len(whole):
            assert (sources[t], out_user[t], out_position[t]) == (-2, 99, 99)
            continue
        user, place, first = whole[low + t]
        assert out_user[t] == user
        assert sources[t] == (CLS_SOURCE if place == 0 else first + place - 1)
        assert out_position[t] == (window_len if place == 0 else (place - 1) % window_len)
    values = np.arange(2000, dtype=np.uint16)
    out = np.full(num_tokens, 9999, np.uint16)
    gather_tokens(values, sources, 0, np.uint16(7777), out)
    assert out.tolist() == [9999 if s == -2 else 7777 if s < 0 else s for s in sources.tolist()]


@given(st.lists(st.floats(width=32, allow_infinity=False), max_size=60))
def test_levels_are_the_distinct_values_or_too_many(values: list[float]) -> None:
    """Ascending, NaN left out; -1 where there are more than the array holds."""
    levels = np.empty(20, np.float32)
    num = collect_levels(np.array(values, np.float32), levels)
    expected = sorted({float(np.float32(v)) for v in values if v == v})
    assert (levels[:num].tolist() == expected) if len(expected) <= 20 else num == -1


def test_the_format_page_has_the_right_test_vectors() -> None:
    """Other implementations check their draws against docs/format.md."""
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
    vectors = re.findall(r"^\| draw\(([^)]+)\).*\| (\d+) \|$", page, re.MULTILINE)
    assert len(vectors) == 5
    for counters, value in vectors:
        seed, *rest = (int(c, 0) for c in counters.split(", "))
        assert int(draw_state(seed, *rest)) == int(value)
    assert "| permutation(20221221, 3, 0, 0) of 8 | 6 5 0 2 1 4 7 3 |" in page
    assert permutation(20221221, 3, 0, 0, num=8).tolist() == [6, 5, 0, 2, 1, 4, 7, 3]
