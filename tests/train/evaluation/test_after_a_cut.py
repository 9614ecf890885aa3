"""The evaluation of a dataset that was split by time: what is asked, of whom, and that nothing after a cut is known."""

import math
import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented_events import at_the_same_time, invent_events, write_csv
from reference_build import Event

from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.tables import read_items, read_user_ids
from train.evaluation.cases import read_cases
from train.evaluation.evaluate import evaluate_steps
from train.evaluation.figures import Evaluation
from train.evaluation.fitting import Fitted, fit_steps
from train.evaluation.horizon import several_figures, several_names, several_ranks
from train.evaluation.horizon_cases import read_horizon_cases
from train.evaluation.tuning import Validation
from train.inference.queries import History
from train.inference.scorer import Scorer
from train.terms.watched import read_training
from train.trained_run import open_run
from train.training.loop import train_steps

KS = (1, 5, 10)
OPTIONS: dict[str, Any] = {"window_len": 32, "split": "time:0.2", "chunk_windows": 2, "shard_windows": 8}
STEPS: dict[str, Any] = {"steps": 6, "layers": 1, "width": 16, "batch_tokens": 256}


@dataclass(frozen=True)
class Data:
    """A dataset, and for each raw user the events as plain Python sorts them."""

    root: Path
    manifest: Manifest
    histories: dict[str, list[Event]]

    @property
    def cut(self) -> int:
        """Unix seconds."""
        assert self.manifest.time_split is not None
        return self.manifest.time_split.test_start

    def asked(self) -> dict[str, int]:
        """User → place of the target, of the users who have an event before the cut and a target after it."""
        found = {}
        for user, history in self.histories.items():
            places = [place for place, e in enumerate(history) if e.status != 0 and e.time >= self.cut]
            if places and history[0].time < self.cut:
                found[user] = places[0]
        return found


def sorted_histories(events: list[Event]) -> dict[str, list[Event]]:
    """The last of equal events counts, in its own place."""
    users: dict[str, dict[tuple[str, str, int], tuple[int, Event]]] = {}
    for number, event in enumerate(events):
        users.setdefault(event.user, {})[event.item, event.medium, event.time] = (number, event)
    return {
        user: [e for _, e in sorted(found.values(), key=lambda pair: (pair[1].time, pair[0]))]
        for user, found in users.items()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Two media; every fourth of the late events is of an item that is new. Tests only read it."""
    folder = tmp_path_factory.mktemp("cut")
    events = at_the_same_time(invent_events(seed=5, num_users=90, media={"anime": 60, "manga": 20}))
    late = sorted(event.time for event in events)[-len(events) // 5]
    events = [
        replace(event, item="late", medium="anime") if event.time > late and number % 4 == 0 else event
        for number, event in enumerate(events)
    ]
    build_shards([str(write_csv(folder / "events.csv", events))], folder / "data", **OPTIONS)
    return Data(folder / "data", load_manifest(folder / "data"), sorted_histories(events))


@pytest.fixture(scope="module", params=["causal", "masked"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Data) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        for _ in train_steps(data.root, path, STEPS | {"objective": request.param}):
            pass
    return path


def result(steps: Iterator[Any]) -> Evaluation:
    *_, last = steps
    assert isinstance(last, Evaluation)
    return last


def test_the_target_is_each_known_users_first_one_after_the_cut(data: Data) -> None:
    """With all events before it, those between the cuts and planned ones after the cut included."""
    raw_ids, items = read_user_ids(data.root), read_items(data.root)
    origin, asked = data.manifest.data_schema.time_origin, data.asked()
    found = {}
    with HistoryReader(data.root, data.manifest) as reader:
        for cases, looked_at in read_cases(reader, read_held_out(data.root), 7, data.cut - origin):
            assert looked_at == len(cases.user) <= 7
            for row, user in enumerate(cases.user.tolist()):
                history = data.histories[raw_ids[user]]
                place = found[raw_ids[user]] = len(cases.histories[row])
                target = history[place]
                assert (items.medium[cases.item[row]], items.raw_id[cases.item[row]]) == (target.medium, target.item)
                assert cases.time[row] == target.time - origin
                assert (np.isnan(cases.rating[row]) and target.rating is None) or cases.rating[row] == target.rating
                assert cases.histories[row].time.tolist() == [e.time - origin for e in history[:place]]
                assert cases.past.take(np.array([row])).time.tolist() == [
                    e.time - origin for e in history[:place] if e.status != 0
                ]
    assert found == asked
    assert any(data.histories[user][place - 1].time >= data.cut for user, place in asked.items())


def test_the_protocol_counts_new_users_and_unseen_targets(data: Data, run: Path) -> None:
    """And names the cut."""
    assert data.manifest.time_split is not None
    asked = data.asked()
    first = data.manifest.time_split.validation_start
    trained = {(e.medium, e.item) for h in data.histories.values() for e in h if e.time < first and e.status != 0}
    new = [h for h in data.histories.values() if h[0].time >= data.cut and any(e.status != 0 for e in h)]
    targets = [data.histories[user][place] for user, place in asked.items()]
    found = result(evaluate_steps(run, ks=KS, num_bootstrap=20))
    assert len({line.system for line in found.ranking}) > 4
    for line in found.ranking:
        protocol = line.protocol
        of_medium = [target for target in targets if protocol.medium in ("all", target.medium)]
        assert (protocol.users, protocol.new_users) == (len(of_medium), len(new))
        assert protocol.users_without_target == len(data.histories) - len(asked)
        assert protocol.unseen_targets == sum((t.medium, t.item) not in trained for t in of_medium)
        assert (protocol.test_start, protocol.split) == (data.cut, "time:0.2")
        assert protocol.target == "first event with an item target from the cut on"
    assert len(new) > 1
    assert found.ranking[0].protocol.unseen_targets > 1


@dataclass(frozen=True)
class Later:
    """A user, and the items of the days after the cut."""

    history: list[Event]  # before the cut
    items: dict[str, set[str]]  # medium → raw ids


def watched_later(data: Data, days: int) -> dict[str, Later]:
    """User → what is asked, of those with an event before the cut."""
    found = {}
    for user, history in data.histories.items():
        items: dict[str, set[str]] = {}
        for e in history:
            if e.status != 0 and data.cut <= e.time < data.cut + days * 86_400:
                items.setdefault(e.medium, set()).add(e.item)
        before = [e for e in history if e.time < data.cut]
        if items and before:
            found[user] = Later(before, items)
    return found


def naive_several(ranks: list[float], k: int) -> tuple[float, float, float]:
    """recall, ndcg and map of one user, target by target."""
    ranks = sorted(ranks)
    hits = [rank for rank in ranks if rank <= k]
    most = min(len(ranks), k)
    dcg = sum(1 / math.log2(1 + rank) for rank in hits)
    precision = sum((number + 1) / rank for number, rank in enumerate(hits))
    return len(hits) / len(ranks), dcg / sum(1 / math.log2(2 + place) for place in range(most)), precision / most


def naive_ranks(scores: list[float], targets: set[int], seen: set[int]) -> list[float]:
    """One place after another for targets of one score, around the mean of all of this score."""
    left = {item: score for item, score in enumerate(scores) if item in targets or item not in seen}
    ranks = []
    for target in sorted(targets):
        better = sum(score > left[target] for score in left.values())
        equal = [item for item, score in left.items() if score == left[target]]
        rivals = [item for item in equal if item in targets]
        ranks.append(1 + better + (len(equal) - len(rivals)) / 2 + sum(item < target for item in rivals))
    return ranks


def history_of(events: list[Event], ids: dict[tuple[str, str], int], origin: int) -> History:
    return History(
        np.array([ids[e.medium, e.item] for e in events], np.int64),
        np.array([e.time - origin for e in events], np.int64),
        np.array([math.nan if e.rating is None else e.rating for e in events], np.float32),
        np.array([e.status for e in events], np.uint8),
        np.array([e.completion for e in events], np.float32),
    )


def test_the_figures_of_several_targets_equal_a_naive_loop(data: Data, run: Path) -> None:
    """One user and one medium at a time, from plain events; two days instead of 14."""
    scorer = Scorer.of_run(run)
    schema, items = data.manifest.data_schema, scorer.items
    ids = {key: number for number, key in enumerate(zip(items.medium, items.raw_id, strict=True))}
    asked = watched_later(data, 2)
    assert asked != watched_later(data, 14)
    values: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}  # (seen, time) → (user, medium) → ranks
    for user, later in asked.items():
        history = history_of(later.history, ids, schema.time_origin)
        for name, raw in later.items.items():
            medium = schema.media.index(name)
            low = schema.medium_offsets[medium]
            targets = {ids[name, item] - low for item in raw}
            seen = {ids[name, e.item] - low for e in later.history if e.medium == name and e.status != 0}
            for time in ("given", "hidden"):
                times = [data.cut - schema.time_origin if time == "given" else None]
                states = scorer.states([history], times, medium)
                scores = scorer.log_probs(states, medium, [history], times, exclude_seen=False)[0].tolist()
                for left_out, what in (("removed", seen), ("kept", set[int]())):
                    values.setdefault((left_out, time), {})[user, name] = naive_ranks(scores, targets, what)
    found = result(evaluate_steps(run, ks=KS, num_bootstrap=20, horizon_days=2, batch_users=5))
    lines = [line for line in found.horizon if line.system == "model"]
    assert len(lines) == 3 * 2 * 2
    for line in lines:
        protocol = line.protocol
        chosen = {
            key: ranks
            for key, ranks in values[protocol.seen, protocol.time].items()
            if protocol.medium in ("all", key[1])
        }
        assert protocol.users == len({user for user, _ in chosen})
        assert protocol.targets == sum(map(len, chosen.values()))
        assert protocol.unseen_targets == sum(
            items.targets[ids[m, item]] == 0 for user, m in chosen for item in asked[user].items[m]
        )
        assert (protocol.horizon_days, protocol.target) == (2, "every item of the 2 days from the cut on")
        for k in KS:
            users: dict[str, list[tuple[float, float, float]]] = {}
            for (user, _), ranks in chosen.items():
                users.setdefault(user, []).append(naive_several(ranks, k))
            expected = np.mean([np.mean(each, axis=0) for each in users.values()], axis=0)
            figures = [line.figures[f"{name}@{k}"].value for name in ("recall", "ndcg", "map")]
            assert figures == pytest.approx(expected.tolist(), rel=1e-5)
    assert {line.system for line in found.horizon} == {line.system for line in found.ranking}
    assert any(len(of) > 1 for of in values["kept", "given"].values())


def test_targets_of_equal_scores_take_places_one_after_the_other() -> None:
    """Ranks and figures of random scores with many ties equal those of loops; no figure is above 1."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (40, 12)).astype(np.float64)
    targets = [np.sort(rng.permutation(12)[: rng.integers(1, 12)]) for _ in scores]
    row = np.repeat(np.arange(40), [len(of) for of in targets])
    ranks = several_ranks(scores, row, np.concatenate(targets))
    expected = [naive_ranks(of.tolist(), set(items.tolist()), set()) for of, items in zip(scores, targets, strict=True)]
    assert ranks.tolist() == [rank for of in expected for rank in of]
    figures = several_figures(ranks, row, KS)
    assert several_names(KS)[:4] == ("recall@1", "recall@5", "recall@10", "ndcg@1")
    assert (figures <= 1 + 1e-12).all()
    for number, of in enumerate(expected):
        loops = np.array([naive_several(of, k) for k in KS]).T.ravel()
        assert figures[number] == pytest.approx(loops)


def test_python_gets_both_questions_in_one_table(run: Path) -> None:
    """Told apart by `target`."""
    table = open_run(run).evaluate(num_bootstrap=5, horizon_days=3).to_arrow()
    asked = set(zip(table["target"].to_pylist(), table["figure"].to_pylist(), strict=True))
    assert ("first event with an item target from the cut on", "hr@10") in asked
    assert ("every item of the 3 days from the cut on", "map@10") in asked


@pytest.mark.parametrize("days", [0, -1, math.nan, 1e9])
def test_impossible_days_are_refused(run: Path, days: float) -> None:
    with pytest.raises(ConfigError, match="horizon_days: must be above 0"):
        next(iter(evaluate_steps(run, horizon_days=days)))


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory, data: Data) -> tuple[Data, Data]:
    """Two datasets that differ in one thing: which item each event after the second cut has. Counts are the same."""
    # With a second of its own, no event of a user can become the duplicate of another one.
    events = [
        replace(event, time=event.time + place) for of in data.histories.values() for place, event in enumerate(of)
    ]
    folder = tmp_path_factory.mktemp("twins")
    build_shards([str(write_csv(folder / "one.csv", events))], folder / "one", **OPTIONS)
    one = Data(folder / "one", load_manifest(folder / "one"), sorted_histories(events))
    late = [number for number, event in enumerate(events) if event.time >= one.cut]
    order = late.copy()
    random.Random(0).shuffle(order)
    other = list(events)
    for number, source in zip(late, order, strict=True):
        other[number] = replace(events[number], item=events[source].item, medium=events[source].medium)
    assert sum(a != b for a, b in zip(events, other, strict=True)) > 50
    build_shards([str(write_csv(folder / "two.csv", other))], folder / "two", **OPTIONS)
    return one, Data(folder / "two", load_manifest(folder / "two"), sorted_histories(other))


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def test_the_items_after_the_cut_change_no_table_no_window_and_no_statistic(twins: tuple[Data, Data]) -> None:
    """Ids, order and counts of items and users, every window, loss scales and repeats are equal to the bit."""
    one, two = twins
    for name in ("items.parquet", "users.parquet"):
        assert (one.root / name).read_bytes() == (two.root / name).read_bytes()
    windows = contents(one.root / "windows.zarr", "*")
    assert len(windows) > 30
    assert windows == contents(two.root / "windows.zarr", "*")
    assert contents(one.root, "histories.zarr/item/c/*") != contents(two.root, "histories.zarr/item/c/*")
    named = {"sources", "plan", "fingerprint", "receipts"}  # identities and checksums of files that do differ
    assert one.manifest.model_dump(exclude=named) == two.manifest.model_dump(exclude=named)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_the_items_after_the_cut_change_no_weight_and_no_score(
    twins: tuple[Data, Data], tmp_path: Path, objective: str, one_thread: None
) -> None:
    """Of the model and of every baseline, for histories that end at the cut: equal to the bit."""
    runs, scores = [], []
    for name, data in zip(("one", "two"), twins, strict=True):
        run = tmp_path / name
        for _ in train_steps(data.root, run, STEPS | {"objective": objective}):
            pass
        runs.append(contents(run, "*.safetensors"))
        scores.append(scores_before_the_cut(data, run))
    assert runs[0]
    assert runs[0] == runs[1]
    assert scores[0].keys() == scores[1].keys()
    assert len(scores[0]) > 10
    for key, values in scores[0].items():
        assert np.isfinite(values).all()
        assert np.array_equal(values, scores[1][key]), key


def fitted(steps: Generator[Any, None, Fitted]) -> Fitted:
    """The baselines, with the settings that are best on validation."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Fitted = end.value
            return found


def scores_before_the_cut(data: Data, run: Path) -> dict[tuple[str, int, bool], np.ndarray]:
    """(System, medium, whether the time is given) → scores of the catalogue for users with an event before the cut."""
    scorer, manifest = Scorer.of_run(run), data.manifest
    cut = data.cut - manifest.data_schema.time_origin
    found: dict[tuple[str, int, bool], np.ndarray] = {}
    with HistoryReader(data.root, manifest) as reader:
        held_out = read_held_out(data.root)
        offsets = manifest.data_schema.medium_offsets
        validation = Validation.read(reader, held_out, offsets, remove_seen=scorer.exclude_seen)
        rankers = fitted(fit_steps(manifest, lambda: read_training(reader, held_out), validation, 0)).rankers
        # The users are the same in both datasets, whatever they watch after the cut.
        (cases,) = read_horizon_cases(reader, manifest.num_users, cut, 2**40, 1000)
    for medium in range(len(manifest.data_schema.media)):
        for is_told in (False, True):
            times = [cut if is_told else None] * len(cases.user)
            states = scorer.states(cases.histories, times, medium)
            log_probs = scorer.log_probs(states, medium, cases.histories, times, exclude_seen=False)
            found["model", medium, is_told] = log_probs.cpu().numpy()
            for ranker in rankers:
                told = np.full(len(cases.user), cut) if is_told and ranker.uses_time else None
                found[ranker.name, medium, is_told] = ranker.scores(cases.past, told, medium)
    return found
