"""Kernels of `last:2` equal their obvious twins: what is held out, and where its windows lie."""

from itertools import chain

import numpy as np
import reference_build as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfeat.kernels.first_fit import first_fit, room_tree
from streamfeat.kernels.last_but_one import last_but_one_targets

HISTORIES = st.lists(st.lists(st.integers(0, 4), max_size=8), max_size=12)


@given(HISTORIES)
def test_the_validation_target_is_the_last_but_one_that_is_not_planned(histories: list[list[int]]) -> None:
    """Of users with at least three targets; the others have none."""
    starts = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    found = np.full(len(histories), 99, np.int64)
    last_but_one_targets(np.array(list(chain(*histories)), np.uint8), starts, 0, found)
    targets = [[place for place, status in enumerate(history) if status != 0] for history in histories]
    assert found.tolist() == [places[-2] if len(places) >= 3 else -1 for places in targets]


@settings(max_examples=300)
@given(st.integers(2, 40), st.lists(st.floats(0, 1), max_size=80))
def test_segments_lie_where_a_scan_of_all_windows_puts_them(window_len: int, shares: list[float]) -> None:
    """With room for one window each, and with the number of windows that first-fit can need at most."""
    lengths = [1 + int(share * (window_len - 1)) for share in shares]
    expected = reference.first_fit(lengths, window_len)
    for most in (len(lengths), min(2 * sum(lengths) // window_len + 1, len(lengths))):
        starts = np.full(len(lengths), -1, np.int64)
        num = first_fit(np.array(lengths, np.int64), window_len, room_tree(most, window_len), starts)
        assert [divmod(start, window_len) for start in starts.tolist()] == expected
        assert num == max((window for window, _ in expected), default=-1) + 1
