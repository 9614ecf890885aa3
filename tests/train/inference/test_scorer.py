"""Scoring: a history asked by itself gets what training and validation would give it."""

import itertools
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from streamfeat import WindowStream
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError, DamagedError
from streamfeat.schema import PLANNED
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import load_manifest
from streamfeat.stream.featurize import TOKEN_ARRAYS
from train.inference.queries import BatchShape, History, Query, query_batches, stored_histories
from train.inference.scorer import Scorer
from train.model.batch import to_batch
from train.runs.standing import Mixture, Mixtures
from train.training.loop import train_steps
from train.training.mixtures import STRENGTHS, MixtureTrial, try_hidden_times

CPU = torch.device("cpu")
ONE_RANK: Any = SimpleNamespace(device=CPU, any=lambda *flags: flags)
GIVEN: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "batch_tokens": 128, "steps": 12, "checkpoint_every": 6}
CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # of the same sums in another order


@pytest.fixture(scope="module")
def last_events(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A dataset whose validation windows ask for the last event of each history alone."""
    folder = tmp_path_factory.mktemp("last")
    source = load_manifest(tiny_dataset).sources[0].path
    build_shards([source], folder / "data", window_len=32, split="last:2", chunk_windows=2, shard_windows=8)
    return folder / "data"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, last_events: Path) -> dict[str, Path]:
    """A run of a few steps for each objective and policy."""
    found = {}
    for name in ("causal", "disjoint", "seed"):
        found[name] = tmp_path_factory.mktemp(name) / "run"
        options = {"objective": "causal" if name == "causal" else "masked"}
        if name != "causal":
            options["mask_policy"] = name
        for _ in train_steps(last_events, found[name], {**GIVEN, **options}):
            pass
    return found


def validation(dataset: Path, scorer: Scorer) -> dict[str, np.ndarray[Any, Any]]:
    """All validation windows of a dataset as one batch."""
    manifest = load_manifest(dataset)
    with WindowStream(
        dataset, objective=scorer.config.objective, mask_policy=scorer.config.mask_policy, seed=scorer.config.seed,
        batch_windows=manifest.splits["validation"].windows, split="validation",
    ) as stream:  # fmt: skip
        return {name: array.copy() for name, array in next(iter(stream)).items()}


def asked_events(dataset: Path) -> Iterator[tuple[int, History, History]]:
    """User, history before the validation target, and history with it, of each user that has one."""
    manifest, held_out = load_manifest(dataset), read_held_out(dataset)
    ends = held_out.validation_events
    with HistoryReader(dataset, manifest) as reader:
        histories = stored_histories(reader.read(0, manifest.num_users), 0, held_out.training_events)
    for user, (history, end) in enumerate(zip(histories, ends.tolist(), strict=True)):
        if end:
            yield user, history.first(end - 1), history.first(end)


def loss_of(dataset: Path, scorer: Scorer, *, hidden: bool = False, exclude_seen: bool = False) -> dict[str, Any]:
    """Task → {user: loss}, by the model's own way over validation windows."""
    arrays = validation(dataset, scorer)
    if hidden:
        arrays["told_time"][:], arrays["told_time_known"][:] = 0, False
    facts = replace(scorer._facts, exclude_seen=exclude_seen)
    batch = to_batch(arrays, slice(None), facts, CPU, split="validation")
    found = scorer._model.target_losses(batch)
    return {task: dict(zip(user.tolist(), loss.tolist(), strict=True)) for task, (loss, user) in found.items()}


def compare(dataset: Path, scorer: Scorer, wanted: dict[str, Any], *, hidden: bool, exclude_seen: bool) -> int:
    """Hold the scorer, without a mixture, to `wanted`; returns how many targets were compared."""
    scorer.mixtures = {}
    schema, compared = scorer.manifest.data_schema, 0
    offsets = schema.medium_offsets
    for user, before, with_target in asked_events(dataset):
        item = int(with_target.item[-1])
        medium = int(np.searchsorted(offsets, item, side="right")) - 1
        name, local = schema.media[medium], item - offsets[medium]
        time = None if hidden else int(with_target.time[-1])
        states = scorer.states([before], [time], medium)
        if (loss := wanted[f"{name}_watch"].get(user)) is not None:
            log_prob = scorer.log_probs(states, medium, [before], [time], exclude_seen=exclude_seen)[0, local].item()
            # A window knows the items in it, the scorer those of the whole history; and a repeat is left out here.
            if not exclude_seen or (math.isfinite(log_prob) and len(before) < schema.window_len - 1):
                assert -log_prob == pytest.approx(loss, abs=1e-4)
                compared += 1
        if (loss := wanted[f"{name}_rating"].get(user)) is not None:
            rating = scorer.ratings([before], [time], states, medium, torch.tensor([[local]]))
            assert (rating[0, 0].item() - with_target.rating[-1]) ** 2 == pytest.approx(loss, abs=1e-3)
            compared += 1
    return compared


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_next_event_gets_the_loss_that_validation_gives_it_causal(
    runs: dict[str, Path], last_events: Path, hidden: bool, exclude_seen: bool
) -> None:
    """Told the time or not, seen items left out or not, also of a history longer than a window."""
    scorer = Scorer.of_run(runs["causal"])
    wanted = loss_of(last_events, scorer, hidden=hidden, exclude_seen=exclude_seen)
    assert compare(last_events, scorer, wanted, hidden=hidden, exclude_seen=exclude_seen) > 40
    assert max(len(before) for _, before, _ in asked_events(last_events)) > 64


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", ["causal", "disjoint", "seed"])
def test_mixtures_are_tried_on_the_probabilities_that_scoring_gives(
    runs: dict[str, Path], last_events: Path, name: str, told: bool
) -> None:
    """Strengths and parts, each medium, each user whose history fits in a window, told the time or not."""
    scorer = Scorer.of_run(runs[name])
    facts, model = scorer._facts, scorer._model
    trial = MixtureTrial(facts, 0, told=told)
    shown = validation(last_events, scorer)
    if told:
        batch = to_batch(shown, slice(None), facts, CPU, split="validation")
        with torch.no_grad():
            trial.add(model, model(batch).flatten(0, 1), batch, shown)
    else:
        windows = len(shown["item"])
        assert try_hidden_times(model, [shown], trial, windows, ONE_RANK)
        model.eval()
    compared = 0
    for medium, of_medium in enumerate(facts.schema.media):
        users = np.concatenate(trial._users[of_medium]).tolist()
        found = np.concatenate(trial._found[of_medium]).reshape(len(users), -1)
        pairs = list(itertools.product(STRENGTHS, trial.temperatures))
        losses, parts = np.split(found, [len(pairs)], 1)
        row_of = {user: row for row, user in enumerate(users)}
        assert len(row_of) == len(users)
        low = facts.schema.medium_offsets[medium]
        none = (0.0,) * parts.shape[1]
        tried = [(pair, none) for pair in pairs]
        tried += [((0.3, trial.temperatures[-1]), (*none[:k], 0.6, *none[k + 1 :])) for k in range(len(none))]
        for user, before, with_target in asked_events(last_events):
            if user not in row_of or len(before) >= facts.schema.window_len - 1:
                continue
            item, row = int(with_target.item[-1]), row_of[user]
            time = int(with_target.time[-1]) if told and name != "seed" else None
            states = scorer.states([before], [time], medium)
            for (strength, by), shares in tried:
                mixture = Mixture(strength=strength, temperature=by, shares=shares, gain=0.1, error=0.1)
                wrong = Mixture(strength=9.0, shares=none, gain=0.1, error=0.1)
                is_hidden = time is None
                both = Mixtures(told=wrong if is_hidden else mixture, hidden=mixture if is_hidden else wrong)
                scorer.mixtures = {of_medium: both}
                log_prob = scorer.log_probs(states, medium, [before], [time])[0, item - low].item()
                if math.isfinite(log_prob):  # a repeat is left out here
                    of_model = np.exp(-losses[row, pairs.index((strength, by))]) * (1 - sum(shares))
                    assert log_prob == pytest.approx(math.log(of_model + parts[row] @ shares), abs=1e-4)
                    compared += strength > 0
    assert compared > 120


def test_a_mixture_is_a_distribution_whether_seen_items_are_left_out_or_not(
    runs: dict[str, Path], last_events: Path
) -> None:
    """P of the items left does not depend on how it is asked for. Nothing is divided by 0 if all items are seen."""
    scorer = Scorer.of_run(runs["causal"])
    scorer._facts = replace(scorer._facts, exclude_seen=True)
    name, (low, high) = scorer.manifest.data_schema.media[0], scorer.manifest.data_schema.medium_offsets[:2]
    mixture = Mixture(strength=0.3, shares=(0.2, 0.1, 0.0, 0.1, 0.0, 0.1), gain=0.1, error=0.1)
    scorer.mixtures = {name: Mixtures(told=mixture, hidden=mixture)}
    histories = [before for _, before, _ in itertools.islice(asked_events(last_events), 5)]
    everything = np.arange(low, high)
    rated = np.full(len(everything), np.nan, np.float32)
    status, time = np.full(len(everything), histories[0].status[0]), np.full(len(everything), histories[0].time[-1])
    histories.append(History(everything, time, rated, status, rated))
    for times in ([None] * 6, [int(history.time[-1]) for history in histories]):
        states = scorer.states(histories, times, 0)
        left = scorer.log_probs(states, 0, histories, times)
        kept = scorer.log_probs(states, 0, histories, times, exclude_seen=False)
        assert kept.isfinite().all()
        torch.testing.assert_close(kept.exp().sum(1), torch.ones(6))
        torch.testing.assert_close(left.exp().sum(1), torch.tensor([1.0, 1, 1, 1, 1, 0]))
        seen = scorer.seen(histories, 0)
        kept[seen] = -torch.inf
        torch.testing.assert_close(kept[:5].log_softmax(1), left[:5], rtol=1e-4, atol=1e-4)


def test_the_next_event_gets_the_loss_that_validation_gives_it_masked(runs: dict[str, Path], last_events: Path) -> None:
    """`disjoint`: asked for the item, or for the rating with the item in view; the time is known."""
    scorer = Scorer.of_run(runs["disjoint"])
    for exclude_seen in (False, True):
        wanted = loss_of(last_events, scorer, exclude_seen=exclude_seen)
        assert wanted["anime_watch"]
        assert wanted["anime_rating"]
        assert compare(last_events, scorer, wanted, hidden=False, exclude_seen=exclude_seen) > 20


def test_the_next_event_gets_the_loss_that_validation_gives_it_seed(runs: dict[str, Path], last_events: Path) -> None:
    """Validation of `seed` hides the time, and the item where it asks for the rating: only watch agrees."""
    scorer = Scorer.of_run(runs["seed"])
    wanted = {task: found if task.endswith("watch") else {} for task, found in loss_of(last_events, scorer).items()}
    assert compare(last_events, scorer, wanted, hidden=True, exclude_seen=False) > 20


@pytest.mark.parametrize("name", ["causal", "disjoint", "seed"])
def test_the_arrays_of_a_history_are_what_the_stream_makes_of_it(
    runs: dict[str, Path], last_events: Path, name: str
) -> None:
    """Token for token and field for field, but for the target itself under the causal objective."""
    scorer = Scorer.of_run(runs[name])
    causal, schema = name == "causal", scorer.manifest.data_schema
    stream = validation(last_events, scorer)
    shape = BatchShape(1, 10**6, fixed=False)
    compared = 0
    for user, before, with_target in asked_events(last_events):
        window, tokens = np.nonzero((stream["user"] == user) & (stream["segment"] >= 0))
        of_stream = {array: values[window[0], tokens] for array, values in stream.items() if array in TOKEN_ARRAYS}
        in_view = of_stream["item"][-1] < schema.num_items  # asked for the rating alone
        if in_view and causal:
            of_stream = {array: values[:-1] for array, values in of_stream.items()}
        medium = int(np.searchsorted(schema.medium_offsets, with_target.item[-1], side="right")) - 1
        time = None if name == "seed" else int(with_target.time[-1])
        query = Query(before, time, medium, int(with_target.item[-1]) if in_view else None)
        [(arrays, asked)] = query_batches([query], schema, shape, causal=causal)
        assert asked.tolist() == [arrays["item"].size - 1]
        for array in set(TOKEN_ARRAYS) - {"user", "segment"}:
            if not array.startswith(("target", "weight")):
                np.testing.assert_array_equal(arrays[array][0], of_stream[array], err_msg=f"{array} of user {user}")
        compared += 1
    assert compared > 40


@pytest.mark.parametrize("name", ["causal", "disjoint"])
def test_a_history_answers_alike_alone_and_among_others(runs: dict[str, Path], last_events: Path, name: str) -> None:
    """Whatever they are, in any order, in one pass or in several, in rows of a fixed shape or in one."""
    scorer = Scorer.of_run(runs[name])
    asked = [(before, int(after.time[-1])) for _, before, after in asked_events(last_events)]
    histories, times = [h for h, _ in asked], [t for _, t in asked]
    together = scorer.states(histories, times, 1)
    order = np.random.default_rng(3).permutation(len(asked)).tolist()
    mixed = scorer.states([histories[i] for i in order], [times[i] for i in order], 1)
    torch.testing.assert_close(mixed, together[order], **CLOSE)
    for shape in (BatchShape(3, 32, fixed=True), BatchShape(1, 40, fixed=False)):
        scorer._shape = shape
        torch.testing.assert_close(scorer.states(histories, times, 1), together, **CLOSE)
    for i in (0, 1, 5):
        torch.testing.assert_close(scorer.states([histories[i]], [times[i]], 1)[0], together[i], **CLOSE)


@pytest.mark.parametrize("name", ["causal", "disjoint", "seed"])
def test_rated_items_are_blind_to_each_other(runs: dict[str, Path], last_events: Path, name: str) -> None:
    """Any order and any company gives the same rating; another item gives another one."""
    scorer = Scorer.of_run(runs[name])
    histories = [before for _, before, _ in asked_events(last_events)][:4]
    times = [None, 10**6, 10**7, 2 * 10**7]
    states = scorer.states(histories, times, 0)
    items = torch.arange(30).repeat(4, 1)
    ratings = scorer.ratings(histories, times, states, 0, items)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scorer.ratings(histories, times, states, 0, items[:, order]), ratings[:, order], **CLOSE)
    for item in (0, 17):
        alone = scorer.ratings(histories, times, states, 0, items[:, item : item + 1])
        torch.testing.assert_close(alone[:, 0], ratings[:, item], **CLOSE)
    assert ratings[0].unique().numel() > 20


def test_probabilities_sum_to_one_over_what_may_follow(runs: dict[str, Path], last_events: Path) -> None:
    """Per medium; a seen item has none, a planned one keeps its own, and where all are seen nothing is left."""
    scorer = Scorer.of_run(runs["causal"])
    schema = scorer.manifest.data_schema
    history = max((before for _, before, _ in asked_events(last_events)), key=len)
    states = scorer.states([history], [None])
    for medium, (low, high) in enumerate(itertools.pairwise(schema.medium_offsets)):
        p = scorer.log_probs(states, medium, [history], [None], exclude_seen=True).exp()[0]
        assert p.sum().item() == pytest.approx(1, abs=1e-5)
        seen = set(history.item[history.status != PLANNED].tolist())
        assert [item for item in range(low, high) if p[item - low] == 0] == sorted(seen & set(range(low, high)))
        assert scorer.log_probs(
            states, medium, [history], [None], exclude_seen=False
        ).exp().sum().item() == pytest.approx(1)
    num = schema.num_items
    everything = History(
        np.arange(num), np.zeros(num, np.int64), np.full(num, np.nan, np.float32), np.full(num, 2, np.uint8),
        np.ones(num, np.float32),
    )  # fmt: skip
    assert torch.isneginf(scorer.log_probs(states, 0, [everything], [None], exclude_seen=True)).all()


def test_the_time_of_the_question_changes_the_answer(runs: dict[str, Path], last_events: Path) -> None:
    """Under both objectives; so does hiding it."""
    _, before, with_target = next(asked_events(last_events))
    for name in ("causal", "disjoint"):
        scorer = Scorer.of_run(runs[name])
        soon, late, hidden = (scorer.states([before], [time], 0) for time in (int(with_target.time[-1]), 10**9, None))
        assert not torch.allclose(soon, late)
        assert not torch.allclose(soon, hidden)
        assert not torch.allclose(late, hidden)


def test_no_history_is_a_question_too(runs: dict[str, Path]) -> None:
    """CLS alone (and, masked, the asked event) gives finite numbers; no question at all gives none."""
    nothing = History(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.float32, np.uint8, np.float32)))
    for run in runs.values():
        scorer = Scorer.of_run(run)
        states = scorer.states([nothing, nothing], [None, 10**6], 1)
        assert torch.isfinite(scorer.log_probs(states, 1, [nothing, nothing], [None, 10**6])).all()
        assert torch.isfinite(scorer.ratings([nothing] * 2, [None, 1], states, 1, torch.tensor([[1, 2], [3, 4]]))).all()
        none = scorer.states([], [], 1)
        assert none.shape == (0, 16)
        assert scorer.log_probs(none, 1, [], []).shape == (0, 20)
        assert scorer.ratings([], [], none, 1, torch.empty(0, 3, dtype=torch.int64)).shape == (0, 3)


def test_a_run_folder_is_all_that_scoring_needs(runs: dict[str, Path], tmp_path: Path) -> None:
    """Copied elsewhere, without its logs; the best checkpoint, the latest and any that is named."""
    run = tmp_path / "elsewhere"
    shutil.copytree(runs["causal"], run)
    (run / "metrics.jsonl").unlink()
    best = Scorer.of_run(run)
    assert f"checkpoints/{best.checkpoint.name}\n" == (run / "best").read_text()
    assert Scorer.of_run(run, checkpoint="latest").checkpoint.name == "step-00000012"
    assert Scorer.of_run(run, checkpoint="step-00000006").checkpoint.name == "step-00000006"
    (run / "best").unlink()
    assert Scorer.of_run(run).checkpoint.name == "step-00000012"


def test_what_cannot_be_scored_is_refused_with_the_reason(runs: dict[str, Path], tmp_path: Path) -> None:
    """No run, no checkpoint, a strange name, a damaged file, tables of another dataset."""
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="no run here"):
        Scorer.of_run(run)
    shutil.copytree(runs["causal"], run)
    for name, message in (
        ("newest", "neither best nor latest"),
        ("../step-00000006", "neither"),
        ("step-00000007", "no such"),
    ):
        with pytest.raises(ConfigError, match=message):
            Scorer.of_run(run, checkpoint=name)
    weights = run / "checkpoints" / "step-00000012" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedError, match=r"model\.safetensors"):
        Scorer.of_run(run, checkpoint="latest")
    (run / "latest").write_text("../../elsewhere\n")
    with pytest.raises(DamagedError, match="does not name a checkpoint"):
        Scorer.of_run(run, checkpoint="latest")
    for pointer in ("best", "latest"):
        (run / pointer).unlink()
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        Scorer.of_run(run)
    record = run / "config.json"
    fingerprint = load_manifest(run / "dataset").fingerprint
    record.write_text(record.read_text().replace(fingerprint, "0" * 64))
    with pytest.raises(DamagedError, match="another dataset"):
        Scorer.of_run(run)
