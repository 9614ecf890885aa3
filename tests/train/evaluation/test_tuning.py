"""Baselines are tuned on validation events; no test event has any part in it."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invented_events import write_csv
from reference_build import Event

from streamfeat.builder.coordinator import build_shards
from streamfeat.progress import Progress
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_user_columns
from train.baselines import all as all_baselines
from train.baselines import ease
from train.baselines.choice import best_of, best_settings
from train.baselines.ratings import MeanRating
from train.evaluation import tuning
from train.evaluation.fitting import Fitted, fit_steps
from train.evaluation.tuning import Validation
from train.terms.ratings import Units
from train.terms.watched import read_training

DAY = 86_400
START = 1_300_000_000


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """80 users whose next item often follows from the last one; every user has other times; media of 15 items."""
    rng = np.random.default_rng(0)
    found = []
    for user in range(80):
        time, place = START + int(rng.integers(0, 40 * DAY)), int(rng.integers(15))
        for _ in range(int(rng.integers(4, 16))):
            place = (place + 1) % 15 if rng.random() < 0.6 else int(rng.integers(15))
            time += int(rng.integers(60, 3 * DAY))
            medium = ("anime", "manga")[user % 2]
            rating = float(1 + (place + user) % 5)
            found.append(Event(f"u{user:02}", f"{medium[0]}{place:02}", medium, time, rating, 2, 1.0))
    return found


def build(folder: Path, events: list[Event], split: str) -> Path:
    folder.mkdir()
    source = write_csv(folder / "events.csv", events)
    build_shards([str(source)], folder / "data", window_len=16, split=split)
    return folder / "data"


def validation_of(dataset: Path, **options: int) -> Validation:
    manifest, held_out = load_manifest(dataset), read_held_out(dataset)
    with HistoryReader(dataset, manifest) as reader:
        return Validation.read(reader, held_out, manifest.data_schema.medium_offsets, remove_seen=False, **options)


def fitted_on(dataset: Path) -> Fitted:
    manifest, held_out = load_manifest(dataset), read_held_out(dataset)
    with HistoryReader(dataset, manifest) as reader:
        offsets = manifest.data_schema.medium_offsets
        validation = Validation.read(reader, held_out, offsets, remove_seen=False)
        found: list[Fitted] = []

        def steps() -> Iterator[Progress]:
            found.append((yield from fit_steps(manifest, lambda: read_training(reader, held_out), validation, 0)))

        list(steps())
        return found[0]


def is_test_event(dataset: Path, events: list[Event]) -> Callable[[Event], bool]:
    """Whether an event is a target of the evaluation, or lies after the cut of a split by time."""
    manifest = load_manifest(dataset)
    if manifest.time_split is not None:
        start = manifest.time_split.test_start
        return lambda event: event.time >= start
    columns = read_user_columns(dataset, ["raw_id", "validation_events"])
    held = {
        raw for raw, num in zip(*(columns[name].to_pylist() for name in ("raw_id", "validation_events")), strict=True)
        if num
    }  # fmt: skip
    last: dict[str, int] = {}
    for event in events:
        last[event.user] = max(last.get(event.user, 0), event.time)
    return lambda event: event.user in held and event.time == last[event.user]


@pytest.mark.parametrize("split", ["last:2", "users:0.4", "time:0.2"])
def test_permuting_the_test_items_changes_no_setting_and_no_figure_on_validation(
    tmp_path: Path, events: list[Event], split: str
) -> None:
    """Items and ratings move among the test events of a medium; everything that was fitted is equal to the bit."""
    dataset = build(tmp_path / "one", events, split)
    is_test = is_test_event(dataset, events)
    changed, rng = list(events), np.random.default_rng(1)
    for medium in ("anime", "manga"):
        places = [place for place, event in enumerate(events) if event.medium == medium and is_test(event)]
        for place, other in zip(places, rng.permutation(places), strict=True):
            changed[place] = replace(events[place], item=events[other].item, rating=events[other].rating)
    moved = sum(new.item != old.item for new, old in zip(changed, events, strict=True))
    assert moved > 10
    one, other = fitted_on(dataset), fitted_on(build(tmp_path / "other", changed, split))
    assert one.medium_C.tolist() == other.medium_C.tolist() != []
    for mine, theirs in zip((*one.rankers, *one.raters), (*other.rankers, *other.raters), strict=True):
        assert (mine.name, mine.settings) == (theirs.name, theirs.settings)
    for figures, others in ((one.gains, other.gains), (one.squares, other.squares)):
        assert figures.keys() == others.keys()
        assert all(np.array_equal(values, others[key]) for key, values in figures.items())


@pytest.mark.parametrize("split", ["last:2", "users:0.4"])
def test_the_validation_target_is_the_last_event_but_one(tmp_path: Path, events: list[Event], split: str) -> None:
    """With the whole history before it. With a split by users only held-out users have one."""
    dataset = build(tmp_path / "one", events, split)
    columns = read_user_columns(dataset, ["raw_id", "validation_events"])
    raw_id, held = (columns[name].to_pylist() for name in ("raw_id", "validation_events"))
    asked = {raw_id[user] for user in range(len(raw_id)) if held[user]}
    histories = {user: sorted((e for e in events if e.user == user), key=lambda e: e.time) for user in asked}
    origin = load_manifest(dataset).data_schema.time_origin
    found = {}
    for _, cases in validation_of(dataset).parts:
        for row, user in enumerate(cases.user.tolist()):
            times = cases.past.time[cases.past.offsets[row] : cases.past.offsets[row + 1]]
            found[raw_id[user]] = [*(times + origin).tolist(), int(cases.time[row]) + origin]
    assert found == {user: [e.time for e in history[:-1]] for user, history in histories.items()}


def test_users_are_drawn_once_and_for_all(tmp_path: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many as asked for, the same in every call, more than one batch of them."""
    monkeypatch.setattr(tuning, "_CACHED_SCORES", 1)  # batches of 16 users
    dataset = build(tmp_path / "one", events, "last:2")
    first, second = validation_of(dataset, max_users=40), validation_of(dataset, max_users=40)
    users = [np.concatenate([cases.user for _, cases in of.parts]).tolist() for of in (first, second)]
    assert users[0] == users[1]
    assert len(set(users[0])) == len(first.medium) == 40
    assert len(first.parts) > 2


def test_baselines_that_need_more_memory_than_is_free_are_left_out_and_named(
    tmp_path: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are fitted, tuned and in the table as ever."""
    for module in (all_baselines, ease):
        monkeypatch.setattr(module, "available_bytes", lambda device: 1000)
    found = fitted_on(build(tmp_path / "one", events, "last:2"))
    assert [left.system for left in found.left_out] == ["popularity with half-lives", "ease"]
    assert all("are free" in left.reason for left in found.left_out)
    names = [ranker.name for ranker in found.rankers]
    assert names == ["popularity", "popularity_30_days", "markov_chain", "item_knn"]
    assert {name for name, _ in found.gains} == set(names)


def test_two_candidates_are_held_at_a_time() -> None:
    """Each may hold a table of pairs: the best so far, and the one that is made or measured."""
    made: list[weakref.ref[Units]] = []
    held: list[int] = []

    def candidates() -> Iterator[Units]:
        for number in (1, 0, 3, 2, 5):
            new = Units(np.full(1, number), np.ones(1))
            made.append(weakref.ref(new))
            held.append(sum(reference() is not None for reference in made))
            yield new
            del new

    assert best_of(candidates(), lambda of: float(of.mean[0])).mean[0] == 5
    assert max(held) == 2


def test_the_first_of_equal_candidates_is_chosen_and_the_first_without_a_case() -> None:
    """So a default that nothing beats stays."""
    assert best_of(iter([3, 5, 5, 4]), None) == 3
    assert best_of(iter([3.0, 5.5, 5.0]), int) == 5.5
    mean = MeanRating(Units(np.zeros(1), np.ones(1)))
    assert best_settings(mean, (("units", ()),), None) is mean
