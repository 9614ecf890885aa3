"""The evaluation of small datasets: the chosen events, the ranked items, and the fields of every line."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented_events import write_csv
from reference_build import Event

from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError, DataError
from streamfeat.progress import Progress
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items, read_user_ids
from train.evaluation.bootstrap import Figure
from train.evaluation.cases import read_cases
from train.evaluation.evaluate import evaluate_steps
from train.evaluation.figures import BaselineLine, DifferenceLine, Evaluation, Protocol, RankingLine, Verdict
from train.inference.queries import History
from train.inference.scorer import Scorer
from train.training.loop import train_steps

KS = (1, 5, 10)
STEPS: dict[str, Any] = {"steps": 6, "layers": 1, "width": 16, "batch_tokens": 256}


@dataclass(frozen=True)
class Asked:
    """A user's target and history, computed from the events."""

    history: list[Event]
    target: Event
    tied: bool


def last_targets(events: list[Event], dataset: Path) -> dict[str, Asked]:
    """Raw user → target, by sorting plain events; users are held out as in the dataset's own tables."""
    users: dict[str, dict[tuple[str, int], tuple[int, Event]]] = {}
    for number, event in enumerate(events):  # the last of equal events counts, in its own place
        users.setdefault(event.user, {})[event.item, event.time] = (number, event)
    last_two = load_manifest(dataset).config.split == "last:2"
    held = set(read_user_ids(dataset)) if last_two else held_out_users(dataset)
    found = {}
    for user in sorted(held):
        history = [e for _, e in sorted(users[user].values(), key=lambda pair: (pair[1].time, pair[0]))]
        places = [place for place, event in enumerate(history) if event.status != 0]
        if len(places) < (3 if last_two else 1):
            continue
        place = places[-1]
        neighbours = history[max(place - 1, 0) : place] + history[place + 1 : place + 2]
        tied = any(event.time == history[place].time for event in neighbours)
        found[user] = Asked(history[:place], history[place], tied)
    return found


def held_out_users(dataset: Path) -> set[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(dataset / "users.parquet").to_pylist()
    return {row["raw_id"] for row in table if row["split"] == "validation"}


@pytest.fixture(scope="module")
def last_two(tmp_path_factory: pytest.TempPathFactory, tiny_events: list[Event]) -> Path:
    """The tiny events with the last two targets of every user held out."""
    folder = tmp_path_factory.mktemp("last_two")
    events = write_csv(folder / "events.csv", tiny_events)
    build_shards([str(events)], folder / "data", window_len=32, split="last:2", chunk_windows=2, shard_windows=8)
    return folder / "data"


@dataclass(frozen=True)
class Done:
    run: Path
    dataset: Path
    found: Evaluation


@pytest.fixture(scope="module", params=["last:2 causal", "users masked"])
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, last_two: Path, tiny_dataset: Path
) -> Done:
    """A run of a few steps, evaluated: both splits, both objectives."""
    dataset = last_two if request.param.startswith("last:2") else tiny_dataset
    run = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        for _ in train_steps(dataset, run, STEPS | {"objective": request.param.split()[1]}):
            pass
        return Done(run, dataset, result(evaluate_steps(run, ks=KS, num_bootstrap=50)))


def result(steps: Iterator[Any]) -> Evaluation:
    *_, last = steps
    assert isinstance(last, Evaluation)
    return last


def naive_ranks(scores: list[float], target: int, seen: set[int]) -> float:
    left = [score for item, score in enumerate(scores) if item == target or item not in seen]
    return 1 + sum(s > scores[target] for s in left) + (sum(s == scores[target] for s in left) - 1) / 2


@dataclass(frozen=True)
class Naive:
    """Ranks and rating errors of the model, user by user."""

    rank: dict[tuple[str, str, str, str], float]  # user, medium, seen, time
    error: dict[tuple[str, str, str], float]  # user, medium, time


def naive_answers(done: Done, events: list[Event]) -> Naive:
    """One user at a time, lists and sets."""
    scorer = Scorer.of_run(done.run)
    schema, items = scorer.manifest.data_schema, scorer.items
    ids = {(medium, raw): number for number, (medium, raw) in enumerate(zip(items.medium, items.raw_id, strict=True))}
    users, training_events = read_user_ids(done.dataset), read_held_out(done.dataset).training_events
    rank, error = {}, {}
    for user, asked in last_targets(events, done.dataset).items():
        history = History(
            np.array([ids[e.medium, e.item] for e in asked.history], np.int64),
            np.array([e.time - schema.time_origin for e in asked.history], np.int64),
            np.array([math.nan if e.rating is None else e.rating for e in asked.history], np.float32),
            np.array([e.status for e in asked.history], np.uint8),
            np.array([e.completion for e in asked.history], np.float32),
            users.index(user),
            int(training_events[users.index(user)]),
        )
        name = asked.target.medium
        medium = schema.media.index(name)
        low = schema.medium_offsets[medium]
        target = ids[name, asked.target.item] - low
        seen = {ids[name, e.item] - low for e in asked.history if e.medium == name and e.status != 0}
        for time in ("given", "hidden"):
            told = [asked.target.time - schema.time_origin if time == "given" else None]
            states = scorer.states([history], told, medium)
            scores = scorer.log_probs(states, medium, [history], told, exclude_seen=False)[0].tolist()
            rank[user, name, "removed", time] = naive_ranks(scores, target, seen)
            rank[user, name, "kept", time] = naive_ranks(scores, target, set())
            if asked.target.rating is not None:
                import torch

                rated = scorer.ratings([history], told, states, medium, torch.tensor([[target]]))
                error[user, name, time] = float(rated[0, 0]) - asked.target.rating
    return Naive(rank, error)


def test_every_figure_of_the_model_equals_a_naive_loop_over_users(done: Done, tiny_events: list[Event]) -> None:
    """Events sorted in plain Python, one user scored at a time, ranks counted in lists."""
    naive = naive_answers(done, tiny_events)
    lines = [line for line in done.found.ranking if line.system == "model"]
    assert {line.protocol.medium for line in lines} == {"all", "anime", "manga"}
    assert len(lines) == 3 * 2 * 2
    for line in lines:
        ranks = [
            rank
            for (_, medium, seen, time), rank in naive.rank.items()
            if line.protocol.medium in ("all", medium) and (seen, time) == (line.protocol.seen, line.protocol.time)
        ]
        assert line.protocol.users == len(ranks)
        for k in KS:
            assert line.figures[f"hr@{k}"].value == pytest.approx(sum(r <= k for r in ranks) / len(ranks))
            gains = [1 / math.log2(1 + r) if r <= k else 0 for r in ranks]
            assert line.figures[f"ndcg@{k}"].value == pytest.approx(sum(gains) / len(gains))
        assert line.figures["mrr"].value == pytest.approx(sum(1 / r for r in ranks) / len(ranks))
    for rated in done.found.ratings:
        if rated.system == "model":
            errors = [
                error
                for (_, medium, time), error in naive.error.items()
                if rated.protocol.medium in ("all", medium) and time == rated.protocol.time
            ]
            assert rated.protocol.users == len(errors)
            assert rated.figures["rmse"].value == pytest.approx(math.sqrt(np.mean(np.square(errors))), rel=1e-4)
            assert rated.figures["mae"].value == pytest.approx(np.mean(np.abs(errors)), rel=1e-4)


def test_every_line_says_under_which_protocol_it_was_reached(done: Done, tiny_events: list[Event]) -> None:
    """Users, users without a target, ties and catalogue are counted from the events."""
    asked = last_targets(tiny_events, done.dataset)
    manifest = load_manifest(done.dataset)
    possible = manifest.num_users if manifest.config.split == "last:2" else manifest.splits["validation"].users
    found = done.found.to_json()
    json.dumps(found, allow_nan=False)
    of_figures = ("verdicts", "ranking", "ratings", "differences", "calibration")
    assert set(found) == {*of_figures, "advice", "horizon", "baselines", "left_out"}
    assert found["horizon"] == [], "only a split by time has one"
    for line in (line for name in of_figures for line in found[name]):
        assert asdict(done.found.ranking[0].protocol).keys() <= line.keys()
        assert line["fingerprint"] == manifest.fingerprint
        assert line["split"] == manifest.config.split
        assert line["tie_rule"] == manifest.tie_rule
        assert line["checkpoint"] == Scorer.of_run(done.run).checkpoint.name
        assert line["users_without_target"] == possible - len(asked)
        assert line["seen"] in ("removed", "kept", "not used")
        assert line["time"] in ("given", "hidden", "not used")
    everyone = done.found.ranking[0].protocol
    assert (everyone.medium, everyone.users) == ("all", len(asked))
    assert everyone.tied_share == pytest.approx(sum(a.tied for a in asked.values()) / len(asked))
    assert 0 < everyone.tied_share < 1
    assert everyone.catalogue == {scale.medium: scale.items for scale in manifest.scales}
    assert everyone.ks == KS


def test_batches_change_no_figure(done: Done) -> None:
    """Users are scored some at a time; their number changes only rounding."""
    *progress, found = evaluate_steps(done.run, ks=KS, num_bootstrap=50, batch_users=3)
    assert isinstance(found, Evaluation)
    fitted = [p for p in progress if isinstance(p, Progress) and p.stage == "fitting"]
    assert [p.detail for p in fitted][:2] == ["popularity", "markov_chain"]
    scored = [p for p in progress if isinstance(p, Progress) and p.stage == "scoring"]
    assert fitted[-1].done == fitted[-1].total == len(fitted) - 1
    assert scored[-1].done == scored[-1].total
    assert len(scored) > 2
    assert numbers(found.to_json()) == pytest.approx(numbers(done.found.to_json()), rel=1e-4, abs=1e-5)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_the_model_is_compared_with_the_best_of_each_family_on_validation(done: Done) -> None:
    """On the same users. A baseline that needs the target's time is compared only if the model also has it."""
    on_validation = {line.system: line for line in done.found.baselines}
    for line in done.found.differences:
        others = {
            other.system: other.figures["ndcg@10" if line.figure == "ndcg@10" else "rmse"].value
            for other in (done.found.ranking if line.figure == "ndcg@10" else done.found.ratings)
            if (other.protocol.medium, other.protocol.seen) == (line.protocol.medium, line.protocol.seen)
            and other.protocol.time in (line.protocol.time, "not used")
            and other.protocol.users == line.protocol.users
        }
        assert line.difference.value == pytest.approx(others["model"] - others[line.baseline], abs=1e-12)
        assert line.difference.low <= line.difference.value <= line.difference.high
        if line.protocol.medium == "all":
            reached = {
                name: value
                for name, of in on_validation.items()
                if of.figure == line.figure and (line.is_best or of.family == line.family)
                for time, value in of.validation.items()
                if time in (line.protocol.time, "not used")
            }
            best = max if line.figure == "ndcg@10" else min
            assert reached[line.baseline] == best(reached.values())
    families = [(line.protocol, line.figure, line.family) for line in done.found.differences]
    assert len({str(key) for key in families}) == len(families)
    assert sum(line.is_best for line in done.found.differences) == 3 * 2 * 2 + 3 * 2
    assert len({line.system for line in done.found.ranking}) == 10
    assert len({line.system for line in done.found.ratings}) == 4


def test_calibration_is_told_with_its_bins(done: Done) -> None:
    """Every user is in one bin; probabilities are those of `recommend`."""
    for line in done.found.calibration:
        bins = line.calibration.bins
        assert sum(b.users for b in bins) == line.protocol.users
        assert all(0 <= b.low <= b.confidence + 1e-12 and b.confidence <= b.high + 1e-12 <= 1 + 1e-9 for b in bins)
        assert line.protocol.seen == ("removed" if Scorer.of_run(done.run).exclude_seen else "kept")


def test_baselines_see_training_events_only(done: Done) -> None:
    """Popularity gives the ranks of the training counts in items.parquet, which contain no held-out event."""
    manifest, items = load_manifest(done.dataset), read_items(done.dataset)
    with HistoryReader(done.dataset, manifest) as reader:
        cases = [cases for cases, _ in read_cases(reader, read_held_out(done.dataset), 7)]
    hits = []
    offsets = manifest.data_schema.medium_offsets
    for batch in cases:
        for target in batch.item:
            medium = int(np.searchsorted(offsets, target, side="right")) - 1
            low, high = offsets[medium : medium + 2]
            hits.append(naive_ranks(items.targets[low:high].tolist(), int(target) - low, set()) <= 5)
    line = next(x for x in done.found.ranking if x.system == "popularity" and x.protocol.seen == "kept")
    assert line.figures["hr@5"].value == pytest.approx(np.mean(hits))


def test_another_dataset_is_refused_with_both_fingerprints(done: Done, last_two: Path, tiny_dataset: Path) -> None:
    """Figures on data of another model would mean nothing."""
    other = tiny_dataset if done.dataset == last_two else last_two
    with pytest.raises(ConfigError) as refused:
        next(iter(evaluate_steps(done.run, other)))
    for dataset in (done.dataset, other):
        assert load_manifest(dataset).fingerprint in str(refused.value)


def test_a_dataset_that_moved_is_named_and_can_be_given(done: Done, tmp_path: Path) -> None:
    """A run remembers the path of its dataset."""
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(done.run, run)
    shutil.copytree(done.dataset, moved)
    config = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps(config | {"dataset": str(tmp_path / "gone")}), "utf-8")
    with pytest.raises(ConfigError, match=r"gone, which does not exist"):
        next(iter(evaluate_steps(run)))
    assert result(evaluate_steps(run, moved, ks=KS, num_bootstrap=50)) == done.found


@pytest.mark.parametrize("wrong", [{"ks": ()}, {"ks": (5, 5)}, {"ks": (0,)}, {"num_bootstrap": 0}, {"batch_users": 0}])
def test_options_out_of_range_are_refused(done: Done, wrong: dict[str, Any]) -> None:
    """Before any file is read."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        next(iter(evaluate_steps(done.run, **wrong)))


def test_days_after_a_cut_are_refused_where_there_is_no_cut(done: Done) -> None:
    with pytest.raises(ConfigError, match=r"horizon_days: the dataset was split by (last:2|users).* --split time:0.1"):
        next(iter(evaluate_steps(done.run, horizon_days=3)))


def test_a_dataset_without_a_target_says_what_to_build(tmp_path: Path) -> None:
    """Two events are too few for last:2, so there is no target."""
    events = [Event(f"u{user}", f"i{user + place}", "anime", 1_300_000_000 + place, 3.0, 2, 1.0)
              for user in range(4) for place in range(2)]  # fmt: skip
    build_shards([str(write_csv(tmp_path / "events.csv", events))], tmp_path / "data", window_len=8, split="last:2")
    for _ in train_steps(tmp_path / "data", tmp_path / "run", STEPS):
        pass
    with pytest.raises(DataError, match="last:2"):
        list(evaluate_steps(tmp_path / "run", num_bootstrap=5))


def test_a_line_reads_like_its_figures() -> None:
    """The JSON of a line has the fields of its protocol next to its own: docs/evaluate.md names them all."""
    page = (Path(__file__).parents[3] / "docs" / "evaluate.md").read_text("utf-8")
    for record in (Protocol, RankingLine, DifferenceLine, Verdict, BaselineLine, Figure):
        for name in record.__dataclass_fields__:
            assert f"`{name}`" in page, name
