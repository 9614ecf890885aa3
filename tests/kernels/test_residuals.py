"""Residuals and their figures against their slow twin, on random windows."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_residuals import Event, Table, figures_of, residuals_of

from streamfeat.kernels import residuals
from streamfeat.kernels.objectives import Asked, Shown
from streamfeat.kernels.residuals import NUM_FIGURES, RatingTable
from streamfeat.stream.featurize import TOKEN_ARRAYS

NUM_ITEMS, NUM_USERS = 12, 9


@dataclass(frozen=True)
class Windows:
    """Random windows, and the table of ratings that they are held against."""

    arrays: dict[str, NDArray[Any]]
    in_view: NDArray[np.bool_]
    in_table: NDArray[np.bool_]
    table: RatingTable
    causal: bool

    def residuals(self) -> NDArray[np.float32]:
        out = np.full(self.in_view.shape, np.nan, np.float32)
        own = np.zeros(NUM_ITEMS), np.zeros(NUM_ITEMS)
        shown, asked = self._groups()
        residuals.residuals(self.table, self.causal, shown, asked, self.in_view, self.in_table, *own, out)
        assert not any(scratch.any() for scratch in own), "scratch memory is left as it was"
        return out

    def figures(self) -> NDArray[np.float32]:
        """(windows, tokens, 6)."""
        out = np.full((*self.in_view.shape, NUM_FIGURES), np.nan, np.float32)
        kernel = residuals.figures_before if self.causal else residuals.figures_around
        kernel(self._groups()[0], self.residuals(), self.in_view & self.arrays["rating_known"], out)
        return out

    def _groups(self) -> tuple[Shown, Asked]:
        return tuple(of(*(self.arrays[name] for name in of._fields)) for of in (Shown, Asked))  # type: ignore[return-value]

    def segments(self) -> list[tuple[int, int, int]]:
        """(row, first token, one past its last)."""
        found = []
        for r, row in enumerate(self.arrays["segment"]):
            edges = np.flatnonzero(np.diff(row, prepend=-9, append=-9))
            found += [(r, int(a), int(b)) for a, b in itertools.pairwise(edges) if row[a] >= 0]
        return found

    def events(self, r: int, start: int, stop: int) -> list[Event]:
        """The tokens of a segment for the twin."""
        of = {name: array[r, start:stop].tolist() for name, array in self.arrays.items()}
        in_view, in_table = self.in_view[r, start:stop].tolist(), self.in_table[r, start:stop].tolist()
        deviations = [
            [(x - self.table.mean_M[m]) / self.table.std_M[m] for x, m in zip(of[name], of["medium"], strict=True)]
            for name in ("rating", "target_rating")
        ]
        return [
            Event(
                item=of["item"][t],
                deviation=deviations[0][t] if in_view[t] and of["rating_known"][t] else None,
                time=of["time"][t] if of["time_known"][t] else None,
                target=(of["target_item"][t], deviations[1][t])
                if not self.causal and of["weight_rating"][t] > 0
                else None,
                in_table=in_table[t],
                told=of["told_time"][t] if of["told_time_known"][t] else None,
            )
            for t in range(stop - start)
        ]


def windows(seed: int, *, causal: bool, rows: int = 2, tokens: int = 24) -> Windows:
    """Segments of any length with repeated items, hidden times, unrated events, special tokens and PAD."""
    rng = np.random.default_rng(seed)
    shape = (rows, tokens)
    arrays: dict[str, NDArray[Any]] = {name: np.zeros(shape, dtype) for name, dtype in TOKEN_ARRAYS.items()}
    arrays["item"][:] = rng.integers(0, NUM_ITEMS + 2, shape)  # from NUM_ITEMS on: special tokens
    arrays["medium"][:] = rng.integers(0, 2, shape)
    arrays["segment"][:] = np.cumsum(rng.random(shape) < 0.12, axis=1)
    arrays["segment"][:, rng.integers(1, tokens + 1) :] = -1
    arrays["user"][:] = (arrays["segment"] + rng.integers(0, 3)) % NUM_USERS
    arrays["time"][:] = np.cumsum(rng.choice([0, 40, 300, 301, 5000], shape), axis=1)
    arrays["told_time"][:] = arrays["time"] + rng.choice([0, 300, 301, 9000], shape)
    for name in ("time_known", "told_time_known", "rating_known"):
        arrays[name][:] = rng.random(shape) < 0.8
    for name in ("rating", "target_rating"):
        arrays[name][:] = rng.integers(1, 11, shape) / 2
    arrays["target_item"][:] = rng.integers(0, NUM_ITEMS, shape)
    arrays["weight_rating"][:] = rng.random(shape) < 0.3
    in_view = (arrays["item"] < NUM_ITEMS) & (arrays["segment"] >= 0) & (rng.random(shape) < 0.9)
    if not causal:
        in_view &= arrays["weight_rating"] == 0
    table = RatingTable(
        *(rng.normal(size=n).astype(np.float32) for n in (NUM_ITEMS, NUM_ITEMS, NUM_USERS)),
        np.array([3.5, 2.0], np.float32),
        np.array([1.0, 1.5], np.float32),
    )
    table = table._replace(num_V=rng.integers(tokens, tokens + 9, NUM_ITEMS).astype(np.float32))
    return Windows(arrays, in_view, rng.random(shape) < 0.6, table, causal)


@pytest.mark.parametrize("causal", [True, False])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_kernels_do_what_their_definitions_say(causal: bool, seed: int) -> None:
    """Every token's residual, and the figures of every token that can be asked at."""
    data = windows(seed, causal=causal)
    found, figures = data.residuals(), data.figures()
    assert (found[~(data.in_view & data.arrays["rating_known"])] == 0).all()
    for r, start, stop in data.segments():
        segment = data.events(r, start, stop)
        bias = float(data.table.bias_U[data.arrays["user"][r, start]])
        expected = residuals_of(segment, Table(data.table.sum_V.tolist(), data.table.num_V.tolist(), bias))
        np.testing.assert_allclose(found[r, start:stop], [x or 0.0 for x in expected], rtol=1e-4, atol=1e-5)
        for at in range(stop - start):
            if causal or expected[at] is None:
                np.testing.assert_allclose(
                    figures[r, start + at], figures_of(segment, expected, at, causal=causal), rtol=1e-4, atol=1e-5
                )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_no_later_rating_changes_a_causal_figure(seed: int) -> None:
    """The event that is asked, and all events after it: their ratings may be anything, or missing. Only an item that
    the user rated before as well tells of its own sum, so items are different here."""
    data = windows(seed, causal=True, tokens=NUM_ITEMS)
    data.arrays["item"][:] = np.random.default_rng(seed).permuted(np.tile(np.arange(NUM_ITEMS), (2, 1)), axis=1)
    before = data.figures()
    for r, start, stop in data.segments():
        for at in range(start, stop - 1):
            saved = data.arrays["rating"].copy(), data.arrays["rating_known"].copy()
            data.arrays["rating"][r, at + 1 : stop] = 77
            data.arrays["rating_known"][r, at + 1 : stop] ^= True
            np.testing.assert_array_equal(data.figures()[r, : at + 1], before[r, : at + 1])
            data.arrays["rating"][:], data.arrays["rating_known"][:] = saved


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_no_target_changes_a_masked_figure(seed: int) -> None:
    """Of the whole batch: a rating that is a target reaches no figure; nor does it as an own rating of another event's
    item, whose sum it is taken out of."""
    data = windows(seed, causal=False)
    is_target = data.arrays["weight_rating"] > 0
    before = data.figures()
    changed = data.arrays["target_rating"] + np.where(is_target, 2, 0).astype(np.float32)
    sums = data.table.sum_V.copy()
    real = is_target & data.in_table & (data.arrays["segment"] >= 0)
    std = data.table.std_M[data.arrays["medium"]]
    item_of = data.arrays["target_item"]
    for r, start, stop in data.segments():
        part = (slice(r, r + 1), slice(start, stop))
        own = sums.copy()
        np.add.at(own, item_of[part][real[part]], (2 / std)[part][real[part]])
        data.arrays["target_rating"][part] = changed[part]
        data.table.sum_V[:] = own
        np.testing.assert_allclose(data.figures()[part], before[part], atol=1e-5)
        data.table.sum_V[:] = sums
