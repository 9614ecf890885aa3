"""What is popular at a time comes from training events before it, and is the same however it is counted."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streamfeat.store.manifest import load_manifest
from train.model.batch import to_batch
from train.model.popularity import HIDDEN, TOLD, PopularityFeatures
from train.terms import popularity
from train.terms.popularity import HALF_LIVES, SMALLEST, PopularityCounts, add_popularity, count_popularity
from train.terms.terms import TERMS, Terms, build_terms
from train.terms.watched import Watched

CPU = torch.device("cpu")
DAY = 86_400


def events(num: int = 400, num_items: int = 9, days: int = 50, seed: int = 0) -> Watched:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, days * DAY, num))
    return Watched(np.array([0, num]), rng.integers(0, num_items, num), time, np.full(num, np.nan, np.float32))


def test_the_features_are_decayed_counts_of_what_was_before_the_edge() -> None:
    """Every edge, item and half-life, against sums over all events."""
    given = events()
    counts = count_popularity(lambda: iter([given]), 0, int(given.time.max()), 9)
    assert len(counts.edges) > 100
    assert counts.edges[-1] == given.time.max() + 1
    for edge, features in zip(counts.edges, counts.features(9), strict=True):
        age = edge - given.time
        for half_life, found in zip(HALF_LIVES, features, strict=False):
            weight = np.where(age > 0, np.exp2(-np.maximum(age, 0) / half_life), 0)
            wanted = np.bincount(given.item, weight, 9)
            np.testing.assert_allclose(found, np.log1p(wanted / SMALLEST), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(features[-1], np.bincount(given.item[age > 0], minlength=9) == 0)


def test_no_target_reads_its_own_event_or_a_later_one() -> None:
    """A time reads the last edge that is not after it, and that edge holds only events before itself."""
    given = events()
    counts = count_popularity(lambda: iter([given]), 0, int(given.time.max()), 9)
    assert (counts.edges[counts.row_of(given.time)] <= given.time).all()
    assert counts.row_of(np.array([-5, 0, 10**12])).tolist() == [0, 0, len(counts.edges) - 1]


def test_many_items_get_fewer_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory stays bounded; the counts at an edge stay what they are."""
    monkeypatch.setattr(popularity, "_MOST_FEATURES", 9 * popularity.NUM_FEATURES * 5)
    given = events()
    counts = count_popularity(lambda: iter([given]), 0, int(given.time.max()), 9)
    assert len(counts.edges) == 6
    *_, last = counts.features(9)
    np.testing.assert_allclose(np.expm1(last[len(HALF_LIVES) - 1]) * SMALLEST, np.bincount(given.item), rtol=1e-4)


def test_events_of_one_second_leave_nothing_to_count() -> None:
    """All edges but the last lie before or at them."""
    given = Watched(np.array([0, 3]), np.array([0, 1, 1]), np.full(3, 7), np.full(3, np.nan, np.float32))
    counts = count_popularity(lambda: iter([given]), 7, 7, 2)
    assert counts.edges.tolist() == [7, 8]
    first, last = (features.copy() for features in counts.features(2))
    assert first[-1].tolist() == [1, 1]
    assert last[-1].tolist() == [0, 0]


def halves() -> tuple[Watched, Watched]:
    """The events before and after the middle."""
    given = events()
    cut = int(np.median(given.time))
    return tuple(  # type: ignore[return-value]
        Watched(np.array([0, part.sum()]), given.item[part], given.time[part], given.rating[part])
        for part in (given.time <= cut, given.time > cut)
    )


def counted(of: Watched) -> PopularityCounts:
    return count_popularity(lambda: iter([of]), 0, int(of.time.max()), 9)


def check_every_edge(counts: PopularityCounts, given: Watched) -> None:
    """The counts at each edge are those of all events before it."""
    for edge, features in zip(counts.edges, counts.features(9), strict=True):
        age = edge - given.time
        for half_life, found in zip(HALF_LIVES, features, strict=False):
            weight = np.where(age > 0, np.exp2(-np.maximum(age, 0) / half_life), 0)
            wanted = np.log1p(np.bincount(given.item, weight, 9) / SMALLEST)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_later_events_are_counted_as_if_they_had_been_there() -> None:
    """The old edges stay, and there is a new one for as many events as the old bins hold."""
    before, later = halves()
    known = counted(before)
    found = add_popularity(known, later.time, later.item.astype(np.int32), 9)
    np.testing.assert_array_equal(found.edges[: len(known.edges)], known.edges)
    assert found.last_time == later.time.max()
    assert len(found.edges) > 1.5 * len(known.edges)
    check_every_edge(found, events())


def test_edges_stay_bounded_and_the_oldest_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often events are added; the counts at the edges that stay are what they were."""
    before, later = halves()
    found = counted(before)
    monkeypatch.setattr(popularity, "_MOST_EDGES", 12)
    for part in np.array_split(np.argsort(later.time, kind="stable"), 30):
        fresh = part[later.time[part] > found.last_time]
        found = add_popularity(found, later.time[fresh], later.item[fresh].astype(np.int32), 9)
        assert len(found.edges) <= 13
    assert found.last_time == later.time.max()
    steps = np.diff(found.edges)
    assert steps[:4].mean() > 2 * steps[-4:].mean()
    check_every_edge(found, events())


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_tables_do_not_depend_on_how_many_users_are_read_at_a_time(parts: int) -> None:
    """Sums are made in the order of events."""
    given = events()
    edges = np.linspace(0, len(given.item), parts + 1).astype(int)
    cut = [
        Watched(np.array([0, b - a]), given.item[a:b], given.time[a:b], given.rating[a:b])
        for a, b in itertools.pairwise(edges)
    ]
    whole, found = (
        count_popularity(lambda batches=batches: iter(batches), 0, int(given.time.max()), 9)
        for batches in ([given], cut)
    )
    for name, array in whole.to_arrays().items():
        np.testing.assert_array_equal(array, found.to_arrays()[name])


def test_a_file_gives_the_same_tables(tiny_dataset: Path) -> None:
    """Every array, to the bit."""
    terms = build_terms(tiny_dataset, load_manifest(tiny_dataset))
    again = Terms.from_bytes(terms.to_bytes(), Path(TERMS))
    for name, array in terms.popularity.to_arrays().items():
        np.testing.assert_array_equal(array, again.popularity.to_arrays()[name])


@pytest.mark.parametrize(("objective", "policy"), [("causal", "disjoint"), ("masked", "disjoint")])
def test_each_target_reads_at_its_told_time_or_at_the_last_one_that_is_visible(
    invented_batch, objective: str, policy: str
) -> None:
    """Told and hidden targets, and those of a segment's first event, before which no time is known."""
    invented = invented_batch(objective=objective, policy=policy)
    features = invented.facts.popularity
    batch = to_batch(invented.arrays, invented.rows, invented.facts, CPU)
    flat = {name: array.reshape(-1) for name, array in invented.arrays.items() if array.ndim == 2}
    kinds = set()
    for targets in batch.targets.values():
        if targets.popularity is None:
            continue
        assert (targets.popularity.row_N.diff() >= 0).all()
        for token, row, kind in zip(
            targets.token_N.tolist(), targets.popularity.row_N.tolist(), targets.popularity.time_N.tolist(), strict=True
        ):
            told = flat["told_time_known" if objective == "causal" else "time_known"][token]
            assert kind == (TOLD if told else HIDDEN)
            when = flat["told_time" if objective == "causal" else "time"][token] if told else None
            place = token
            while when is None and place >= 0 and flat["segment"][place] == flat["segment"][token]:
                if flat["time_known"][place]:
                    when = flat["time"][place]
                place -= 1
            wanted = features.empty_row if when is None else int(features.counts.row_of(np.array([when]))[0])
            assert row == wanted
            kinds.add((kind, when is None))
    assert (TOLD, False) in kinds
    if objective == "causal":
        assert (HIDDEN, False) in kinds


def test_a_question_makes_the_rows_of_its_times_alone_and_many_make_all(invented_batch) -> None:
    """The rows are the same as where all are made at once."""
    facts = invented_batch(objective="causal").facts
    whole, few = (PopularityFeatures.of(facts.terms.popularity, facts.schema, CPU) for _ in range(2))
    whole.make()
    edges = facts.terms.popularity.edges
    asked = np.array([edges[3], edges[40], edges[-1] + 10**6])
    rows = few.rows_at(asked, np.array([True, True, True]))
    assert rows.tolist() == [3, 40, len(edges) - 1]
    assert np.flatnonzero(few.is_made).tolist() == [3, 40, len(edges) - 1, few.empty_row]
    for mine, theirs in zip(few.by_medium, whole.by_medium, strict=True):
        assert torch.equal(mine[:, rows], theirs[:, rows])
        assert not mine[:, few.empty_row].any()
    few.rows_at(edges[:20], np.ones(20, np.bool_))
    assert few.is_made.all()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(few.by_medium, whole.by_medium, strict=True))


def test_the_policy_that_draws_times_has_no_such_term(invented_batch) -> None:
    """Its model has no parameters for it, and its batches no rows."""
    invented = invented_batch(objective="masked", policy="seed")
    assert invented.model().watch.popularity is None
    batch = to_batch(invented.arrays, invented.rows, invented.facts, CPU)
    assert all(targets.popularity is None for targets in batch.targets.values())


def test_with_fixed_weights_later_events_of_others_change_no_logit(invented_batch) -> None:
    """Training events after a target's time are shuffled among items: its loss is the same to the bit."""
    invented = invented_batch(objective="causal")
    flat_item, flat_time = invented.arrays["item"].reshape(-1), invented.arrays["time"].reshape(-1)
    is_event = flat_item < invented.facts.schema.num_items
    item, time = flat_item[is_event].astype(np.int64), flat_time[is_event]
    cut = int(np.median(time))
    later = time >= cut
    shuffled = item.copy()
    shuffled[later] = np.random.default_rng(1).permutation(item[later])
    assert (shuffled != item).any()

    def losses(items: np.ndarray) -> dict[str, torch.Tensor]:
        given = Watched(np.array([0, len(items)]), items, time, np.full(len(items), np.nan, np.float32))
        counts = count_popularity(
            lambda: iter([given]), int(time.min()), int(time.max()), invented.facts.schema.num_items
        )
        terms = replace(invented.facts.terms, popularity=counts)
        facts = invented.with_facts(terms=terms).facts.on_device(CPU)
        batch = to_batch(invented.arrays, invented.rows, facts, CPU)
        model = invented.model()
        with torch.no_grad():
            model.watch.popularity.weight_FD.normal_(generator=torch.Generator().manual_seed(3))
        found = model.target_losses(batch)
        told = invented.arrays["told_time"].reshape(-1)
        known = invented.arrays["told_time_known"].reshape(-1)
        return {
            task: found[task][0][torch.from_numpy((known & (told <= cut))[targets.token_N.numpy()])]
            for task, targets in batch.targets.items()
            if targets.popularity is not None
        }

    before, after = losses(item), losses(shuffled)
    for task, values in before.items():
        assert len(values)
        assert torch.equal(values, after[task])
