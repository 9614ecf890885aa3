"""The transitions of training histories: the same however they are read, with bounded memory."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamfeat.store.manifest import load_manifest
from train.terms import transitions
from train.terms.terms import TERMS, Terms, build_terms
from train.terms.transitions import LAST_ITEMS, add_transitions, count_transitions
from train.terms.watched import Watched

NUM_ITEMS = 30


def histories(num_users: int = 20, seed: int = 0) -> Watched:
    rng = np.random.default_rng(seed)
    offsets = np.append(0, np.cumsum(rng.integers(0, 15, num_users)))
    num = int(offsets[-1])
    return Watched(offsets, rng.integers(0, NUM_ITEMS, num), np.arange(num), np.full(num, np.nan, np.float32))


def counted(*batches: Watched) -> transitions.Transitions:
    return count_transitions(lambda: iter(batches), sum(len(batch.item) for batch in batches), NUM_ITEMS)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_tables_do_not_depend_on_how_many_users_or_items_are_done_at_a_time(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """To the bit, and each history is counted by itself."""
    given = histories()
    whole = counted(given).to_arrays()
    monkeypatch.setattr(transitions, "_ROWS", rows)
    cut = [given.take(part) for part in np.split(np.arange(given.num_users), [3, 4, 11])]
    found = counted(*cut).to_arrays()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, found[name])


def test_of_too_many_events_every_kth_user_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all batches, so that they do not matter."""
    given = histories()
    monkeypatch.setattr(transitions, "_MOST_EVENTS", len(given.item) * 2 // 5)
    cut = [given.take(part) for part in np.split(np.arange(given.num_users), [3, 4, 11])]
    found = counted(*cut).to_arrays()
    monkeypatch.undo()
    chosen = given.take(np.arange(0, given.num_users, 3))
    for name, array in counted(chosen).to_arrays().items():
        np.testing.assert_array_equal(array, found[name])


def test_later_events_are_added_with_what_they_follow() -> None:
    """Histories that are given whole end up as if all of their events had been counted at once."""
    given = histories()
    rng = np.random.default_rng(1)
    time = np.concatenate([np.sort(rng.integers(0, 100, n)) for n in np.diff(given.offsets)])
    given = replace(given, time=time)
    lengths = np.diff(given.offsets)
    early = time <= 40
    cut = Watched(np.append(0, np.cumsum(early))[given.offsets], given.item[early], time[early], given.rating[early])
    assert (lengths > np.diff(cut.offsets)).any()
    found = add_transitions(counted(cut), given, 40)
    wanted = counted(given)
    np.testing.assert_array_equal(found.neighbours.num_V, wanted.neighbours.num_V)
    np.testing.assert_allclose(found.neighbours.total_V, wanted.neighbours.total_V)
    last = np.full((NUM_ITEMS, LAST_ITEMS), -1, np.int32)
    last[:, 0] = np.arange(NUM_ITEMS)
    np.testing.assert_allclose(
        found.log_lift(last, 0, NUM_ITEMS), wanted.log_lift(last, 0, NUM_ITEMS), rtol=1e-4, atol=1e-5
    )


def test_items_that_follow_each_other_get_a_higher_term_than_popular_ones() -> None:
    """Of two media, each asked for its own items. Without a history the term is 0."""
    runs = [[0, 10, 1, 11] * 2, [2, 12, 3, 13] * 2, [5] * 40]
    offsets = np.append(0, np.cumsum([len(run) for run in runs]))
    item = np.concatenate(runs)
    given = Watched(offsets, item, np.arange(len(item)), np.full(len(item), np.nan, np.float32))
    table = counted(given)
    last = np.full((2, LAST_ITEMS), -1, np.int32)
    last[0, 0] = 0
    first, second = table.log_lift(last, 0, 10), table.log_lift(last, 10, NUM_ITEMS)
    assert first[0].argmax() == 1
    assert set(np.flatnonzero(second[0])) == {0, 1}
    assert not first[1].any()
    assert not second[1].any()


def test_a_dataset_without_training_events_has_no_transitions() -> None:
    """Nothing is divided by 0."""
    table = counted()
    assert not table.log_lift(np.zeros((1, LAST_ITEMS), np.int32), 0, NUM_ITEMS).any()


def test_a_file_gives_the_same_tables(tiny_dataset: Path) -> None:
    """Every array, to the bit; only items of training events have neighbours."""
    terms = build_terms(tiny_dataset, load_manifest(tiny_dataset))
    again = Terms.from_bytes(terms.to_bytes(), Path(TERMS))
    for name, array in terms.transitions.to_arrays().items():
        np.testing.assert_array_equal(array, again.transitions.to_arrays()[name])
    table = terms.transitions.neighbours
    for i, (start, stop) in enumerate(itertools.pairwise(table.start_V.tolist())):
        assert (stop > start) <= (table.num_V[i] > 0)
