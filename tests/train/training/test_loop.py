"""Training: what is resumed is what was never interrupted, and what a batch does hangs on nothing else."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamfeat import WindowStream
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError, DamagedError, DivergedError
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest
from train.config import TrainConfig
from train.devices.device import exact_arithmetic
from train.devices.ranks import joined
from train.model.transformer import EventTransformer
from train.runs.checkpoint import Checkpoints, read_checkpoint
from train.runs.folder import open_run_together
from train.runs.metrics import read_metrics
from train.training.loop import train_steps
from train.training.progress import Finished, Saved, Started, Stepped, Stopped, TrainingReport, Validated
from train.training.session import open_session

# Batches of 3 windows of tiny_dataset's 16: six steps an epoch. Dropout is on, as it is by default.
GIVEN: dict[str, Any] = {
    "layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 14, "validate_every": 5, "checkpoint_every": 4,
}  # fmt: skip
OBJECTIVES = [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")]
TIMES = ("tokens_per_s", "wait_share")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> dict[tuple[str, str], Path]:
    """A run of each objective that nothing interrupted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {}
    for objective, policy in OBJECTIVES:
        run = tmp_path_factory.mktemp("run") / "run"
        drain(train_steps(tiny_dataset, run, {**GIVEN, "objective": objective, "mask_policy": policy}))
        runs[objective, policy] = run
    torch.set_num_threads(before)
    return runs


def drain(records: Iterator[TrainingReport]) -> list[TrainingReport]:
    return list(records)


def notes(records: list[TrainingReport], *, warning: bool = False) -> str:
    return "\n".join(record.text for record in records if isinstance(record, Note) and record.warning == warning)


def numbers(run: Path) -> list[dict[str, Any]]:
    """The metrics that count, without how long things took."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint, problems = Checkpoints(run).load_newest()
    assert checkpoint is not None
    assert problems == []
    averages = {f"average.{key}": value for key, value in checkpoint.weights.items()}
    return {
        **averages,
        **checkpoint.trained,
        **{f"optimizer.{key}": value for key, value in checkpoint.optimizer.items()},
    }


def assert_same(run: Path, other: Path) -> None:
    """Bit for bit: every line of metrics, every weight, the optimizer's state."""
    assert numbers(run) == numbers(other)
    mine, theirs = weights(run), weights(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name


def stop_after(step: int, records: Iterator[TrainingReport], asked: list[bool]) -> list[TrainingReport]:
    """Drain a run, asking it to stop as soon as it has made `step` steps."""
    seen = []
    for record in records:
        seen.append(record)
        if isinstance(record, Stepped) and record.step == step:
            asked.append(True)
    return seen


def test_a_run_says_and_logs_each_step_once(undisturbed: dict[tuple[str, str], Path]) -> None:
    """A train line per step, a validation line every five and after the last, every task in each."""
    run = undisturbed["causal", "disjoint"]
    lines = read_metrics(run)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 15))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [5, 10, 14]
    tasks = {f"loss_{medium}_{kind}" for medium in ("anime", "manga") for kind in ("watch", "rating")}
    for line in lines:
        is_validation = line["kind"] == "validation"
        baselines = {task.replace("loss", "baseline") for task in tasks if is_validation}
        watch = {"watch"} if is_validation else set()
        assert line.keys() == {"kind", "step", "loss", "lr", "tokens_per_s", "wait_share"} | tasks | baselines | watch
        assert 0 <= line["wait_share"] <= 1
        assert line["tokens_per_s"] > 0
    best = min((line for line in lines if line["kind"] == "validation"), key=lambda line: line["watch"])["step"]
    before = read_checkpoint(Checkpoints(run).path(12)).state.standing.best
    assert before is not None
    assert Checkpoints(run).steps() == sorted({12, 14, best, before.step})
    assert (run / "best").read_text() == f"checkpoints/step-{best:08d}\n"


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_the_loss_is_the_sum_of_scaled_task_losses(
    undisturbed: dict[tuple[str, str], Path], tiny_dataset: Path, objective: str, policy: str
) -> None:
    """`loss` divides each task by its scale in the manifest; a task without targets adds nothing."""
    scales = {}
    for scale in load_manifest(tiny_dataset).scales:
        scales[f"loss_{scale.medium}_watch"] = scale.watch_entropy
        scales[f"loss_{scale.medium}_rating"] = scale.rating_variance
    for line in read_metrics(undisturbed[objective, policy]):
        terms = [line[task] / scale for task, scale in scales.items() if line[task] is not None]
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-12)


@pytest.mark.parametrize("step", [1, 4, 5, 6, 7, 13])
def test_a_run_stopped_after_any_step_and_resumed_is_the_run_that_was_not(
    tmp_path: Path, tiny_dataset: Path, undisturbed: dict[tuple[str, str], Path], step: int
) -> None:
    """Inside an epoch, exactly at its end and just after, at a checkpoint, at a validation and before the last."""
    asked: list[bool] = []
    seen = stop_after(step, train_steps(tiny_dataset, tmp_path / "run", GIVEN, stop=lambda: bool(asked)), asked)
    assert seen[-1] == Stopped(step)
    assert Checkpoints(tmp_path / "run").steps()[-1] == step
    rest = drain(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    assert [record.step for record in rest if isinstance(record, Stepped)] == list(range(step + 1, 15))
    assert_same(tmp_path / "run", undisturbed["causal", "disjoint"])


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_a_run_resumed_again_and_again_is_the_run_that_was_not(
    tmp_path: Path, tiny_dataset: Path, undisturbed: dict[tuple[str, str], Path], objective: str, policy: str
) -> None:
    """One to four steps at a time, all objectives: nothing is carried that a checkpoint does not hold."""
    rng, run = random.Random(objective + policy), tmp_path / "run"
    given = {**GIVEN, "objective": objective, "mask_policy": policy}
    step, last = 0, None
    while not isinstance(last, Finished):
        step += rng.randint(1, 4)
        asked: list[bool] = []
        records = train_steps(tiny_dataset, run, given, resume=True, stop=lambda asked=asked: bool(asked))
        last = stop_after(step, records, asked)[-1]
    assert_same(run, undisturbed[objective, policy])


@pytest.mark.parametrize("step", [2, 4, 9, 14])
def test_a_run_that_vanished_goes_on_from_its_last_checkpoint(
    tmp_path: Path, tiny_dataset: Path, undisturbed: dict[tuple[str, str], Path], step: int
) -> None:
    """Without a last save, steps since the checkpoint are done again and their later lines count."""
    records = train_steps(tiny_dataset, tmp_path / "run", GIVEN)
    for record in records:
        if isinstance(record, Stepped) and record.step == step:
            break
    records.close()  # type: ignore[attr-defined]
    rest = drain(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    first = (step - 1) // 4 * 4 + 1
    assert next(record.step for record in rest if isinstance(record, Stepped)) == first
    assert ("starting from step 0" in notes(rest)) == (first == 1)
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) > len(numbers(tmp_path / "run"))
    assert_same(tmp_path / "run", undisturbed["causal", "disjoint"])


def test_a_validation_that_was_interrupted_is_made_up_for(
    tmp_path: Path, tiny_dataset: Path, undisturbed: dict[tuple[str, str], Path]
) -> None:
    """Asked to stop inside a validation, a run stops at once; the resumed one validates that step first."""
    asked: list[bool] = []
    for step in (5, 14):
        seen = stop_after(
            step, train_steps(tiny_dataset, tmp_path / "run", GIVEN, resume=True, stop=lambda: bool(asked)), asked
        )
        assert seen[-1] == Stopped(step)
        assert not any(isinstance(record, Validated) and record.figures.step == step for record in seen)
        asked.clear()
    rest = drain(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    assert [record.figures.step for record in rest if isinstance(record, Validated)] == [14]
    assert_same(tmp_path / "run", undisturbed["causal", "disjoint"])


def test_a_finished_run_resumed_says_so_and_does_nothing(tmp_path: Path, tiny_dataset: Path) -> None:
    """Not one more step, not one more line, the checkpoint untouched."""
    run = tmp_path / "run"
    first = drain(train_steps(tiny_dataset, run, {**GIVEN, "steps": 5}))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    again = drain(train_steps(tiny_dataset, run, {"steps": 5}, resume=True))
    assert "nothing to do" in notes(again)
    assert not any(isinstance(record, Stepped | Validated | Saved) for record in again)
    assert again[-1] == first[-1]
    assert isinstance(again[-1], Finished)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    tmp_path: Path, tiny_dataset: Path, undisturbed: dict[tuple[str, str], Path]
) -> None:
    """It is named in a warning, and the outcome is that of the undisturbed run."""
    run, asked = tmp_path / "run", [False]
    stop_after(9, train_steps(tiny_dataset, run, GIVEN, stop=lambda: asked[-1]), asked)
    damaged = run / "checkpoints/step-00000009/model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    rest = drain(train_steps(tiny_dataset, run, resume=True))
    assert str(damaged) in notes(rest, warning=True)
    assert next(record.step for record in rest if isinstance(record, Started)) == 8
    assert_same(run, undisturbed["causal", "disjoint"])


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
@pytest.mark.parametrize("micro_batch_tokens", [32, 64])
def test_accumulation_changes_no_number_beyond_rounding(
    tmp_path: Path,
    tiny_dataset: Path,
    undisturbed: dict[tuple[str, str], Path],
    objective: str,
    policy: str,
    micro_batch_tokens: int,
) -> None:
    """Passes of one window, and of two then one: the same losses, dropout included, to a tolerance."""
    given = {**GIVEN, "objective": objective, "mask_policy": policy, "micro_batch_tokens": micro_batch_tokens}
    drain(train_steps(tiny_dataset, tmp_path / "run", given))
    whole = numbers(undisturbed[objective, policy])
    for line, other in zip(numbers(tmp_path / "run"), whole, strict=True):
        assert line.keys() == other.keys()
        for key, value in line.items():
            assert value == (pytest.approx(other[key], rel=2e-4) if isinstance(value, float) else other[key]), key


def test_a_resumed_run_may_take_smaller_micro_batches(
    tmp_path: Path, tiny_dataset: Path, undisturbed: dict[tuple[str, str], Path]
) -> None:
    """They change memory, not numbers; threads neither."""
    asked: list[bool] = []
    stop_after(7, train_steps(tiny_dataset, tmp_path / "run", GIVEN, stop=lambda: bool(asked)), asked)
    drain(train_steps(tiny_dataset, tmp_path / "run", {"micro_batch_tokens": 32, "threads": 2}, resume=True))
    whole = [line["loss"] for line in numbers(undisturbed["causal", "disjoint"])]
    assert [line["loss"] for line in numbers(tmp_path / "run")] == pytest.approx(whole, rel=2e-4)


def test_another_seed_is_another_run(tmp_path: Path, tiny_dataset: Path) -> None:
    """Order, weights and dropout come from the run's seed: no two first losses agree."""
    losses = []
    for seed in (0, 1):
        drain(train_steps(tiny_dataset, tmp_path / str(seed), {**GIVEN, "steps": 1, "seed": seed}))
        losses.append(numbers(tmp_path / str(seed))[0]["loss"])
    assert losses[0] != losses[1]


def test_epochs_are_passes_over_the_training_windows(tmp_path: Path, tiny_dataset: Path) -> None:
    """Without --steps, --epochs decides; a batch is tokens over window_len, rounded, at least one window."""
    records = train_steps(tiny_dataset, tmp_path / "run", {"epochs": 2, "batch_tokens": 111})
    started = next(record for record in records if isinstance(record, Started))
    windows = load_manifest(tiny_dataset).splits["training"].windows
    assert (started.batch_windows, started.window_len) == (3, 32)
    assert started.num_steps == 2 * started.steps_per_epoch == 2 * -(-windows // 3)
    assert TrainConfig(batch_tokens=1).batch_windows(32) == 1
    assert TrainConfig(batch_tokens=49).batch_windows(32) == 2
    assert TrainConfig(batch_tokens=96, micro_batch_tokens=1).micro_batch_windows(32) == 1
    assert TrainConfig(batch_tokens=96, micro_batch_tokens=10**9).micro_batch_windows(32) == 3


def test_losses_that_are_not_finite_are_not_applied_and_end_the_run_after_ten(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    """A rate that blows up the weights: nulls in the metrics, weights as before, the last checkpoint named."""
    run, seen = tmp_path / "run", []
    given = {**GIVEN, "steps": 40, "learning_rate": 1e30, "checkpoint_every": 1, "validate_every": 40}
    with pytest.raises(DivergedError, match=r"last 10 steps.*checkpoints/step-\d+") as error:
        seen.extend(train_steps(tiny_dataset, run, given))
    lines = numbers(run)
    bad = [line["step"] for line in lines if line["loss"] is None]
    assert bad == list(range(lines[-1]["step"] - 9, lines[-1]["step"] + 1))
    newest = Checkpoints(run).steps()[-1]
    assert str(Checkpoints(run).path(newest)) in str(error.value)
    first, last = (read_checkpoint(Checkpoints(run).path(step)) for step in Checkpoints(run).steps())
    assert all(torch.equal(first.weights[name], last.weights[name]) for name in first.weights)
    # A resumed run does not count from the start again.
    with pytest.raises(DivergedError):
        drain(train_steps(tiny_dataset, run, resume=True))
    assert numbers(run)[-1]["step"] == lines[-1]["step"]


def planned_dataset(folder: Path, *, num_users: int = 12) -> Path:
    """Windows of 8 tokens; three users in four have nothing but planned events."""
    rng = np.random.default_rng(0)
    lines = ["user,item,timestamp,rating,status"]
    for user in range(num_users):
        status = "completed" if user % 4 == 0 else "planned"
        for time in range(1_300_000_000, 1_300_000_150, 10):
            lines.append(f"u{user},i{rng.integers(20)},{time},{rng.integers(1, 9)},{status}")
    folder.mkdir()
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    build_shards([str(folder / "events.csv")], folder / "data", window_len=8)
    return folder / "data"


def test_a_batch_without_a_target_is_counted_and_not_applied(tmp_path: Path) -> None:
    """Its line has nulls, weights and optimizer stay, the run goes on."""
    dataset, run = planned_dataset(tmp_path / "planned"), tmp_path / "run"
    given = {**GIVEN, "batch_tokens": 8, "steps": 20, "checkpoint_every": 1}
    before: dict[str, torch.Tensor] = {}
    num_empty = 0
    for record in train_steps(dataset, run, given):
        if not isinstance(record, Saved):
            continue
        line, now = numbers(run)[-1], weights(run)
        assert line["step"] == record.step
        if line["loss"] is None:
            num_empty += 1
            assert all(value is None for key, value in line.items() if key.startswith("loss"))
            assert all(torch.equal(now[name], before[name]) for name in before)
        elif before:
            assert any(not torch.equal(now[name], before[name]) for name in before)
        before = now
    assert 5 < num_empty < 20


def test_a_dataset_without_validation_trains(tmp_path: Path) -> None:
    """One user is one to train on: no validation line, and the run ends as finished."""
    dataset = planned_dataset(tmp_path / "planned", num_users=1)
    last = drain(train_steps(dataset, tmp_path / "run", {**GIVEN, "steps": 3}))[-1]
    assert last == Finished(3, None, None, None, "all 3 steps are done (--steps)")
    assert [line["kind"] for line in numbers(tmp_path / "run")] == ["train"] * 3


def test_data_that_was_built_again_is_refused_on_resume(tmp_path: Path) -> None:
    """A saved position would mean other events: both fingerprints are named."""
    dataset = planned_dataset(tmp_path / "a")
    drain(train_steps(dataset, tmp_path / "run", {**GIVEN, "steps": 2}))
    events = tmp_path / "a/events.csv"
    events.write_text(events.read_text() + "u1,i99,1400000000,5,completed\n")
    build_shards([str(events)], tmp_path / "b", window_len=8)
    saved, now = load_manifest(dataset).fingerprint, load_manifest(tmp_path / "b").fingerprint
    with pytest.raises(ConfigError, match=f"saved {saved}, now {now}"):
        drain(train_steps(tmp_path / "b", tmp_path / "run", resume=True))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, tiny_dataset: Path) -> None:
    """Checkpoints copied between folders: each difference with both values."""
    for seed in (0, 1):
        drain(train_steps(tiny_dataset, tmp_path / str(seed), {**GIVEN, "steps": 1, "seed": seed}))
    (tmp_path / "0/checkpoints").rename(tmp_path / "gone")
    (tmp_path / "1/checkpoints").rename(tmp_path / "0/checkpoints")
    with pytest.raises(ConfigError, match=r"--seed: config\.json 0, checkpoint 1"):
        drain(train_steps(tiny_dataset, tmp_path / "0", resume=True))


def test_running_out_of_device_memory_names_the_option_to_lower(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and --micro-batch-tokens, which changes no number; never a silent retry."""

    calls, loss_sums = [], EventTransformer.loss_sums

    def run_out(model: EventTransformer, batch: Any) -> dict[str, torch.Tensor]:
        calls.append(batch)
        if len(calls) > 1:  # the rehearsal before the first step still had enough
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss_sums(model, batch)

    monkeypatch.setattr(EventTransformer, "loss_sums", run_out)
    with pytest.raises(ConfigError, match=r"3 windows of 32 tokens.*1 layers × 16.*--micro-batch-tokens \(now 96\)"):
        drain(train_steps(tiny_dataset, tmp_path / "run", GIVEN))


def test_a_run_keeps_the_number_of_packings_it_began_with(tmp_path: Path, tiny_dataset: Path) -> None:
    """Packings that were added to the dataset meanwhile change nothing, with a checkpoint or without one."""
    events = tiny_dataset.parent / "events.csv"
    build: dict[str, Any] = {"window_len": 32, "split": "users:0.2", "chunk_windows": 2, "shard_windows": 8}
    build_shards([str(events)], tmp_path / "data", **build)
    for name in ("whole", "early", "late"):
        asked: list[bool] = []
        step = {"whole": 14, "early": 1, "late": 7}[name]
        records = train_steps(tmp_path / "data", tmp_path / name, GIVEN, stop=lambda asked=asked: bool(asked))
        if name != "whole":
            stop_after(step, records, asked)
        else:
            drain(records)
    shutil.rmtree(tmp_path / "early/checkpoints")
    build_shards([str(events)], tmp_path / "data", **build, packings=3)
    for name in ("early", "late"):
        drain(train_steps(tmp_path / "data", tmp_path / name, resume=True))
        assert_same(tmp_path / name, tmp_path / "whole")


def test_a_damaged_batch_ends_its_own_step_and_none_before(tmp_path: Path, tiny_dataset: Path) -> None:
    """The next batch is prepared while a step runs: what is wrong with it leaves that step whole, and saved."""
    shutil.copytree(tiny_dataset, tmp_path / "data")
    shard = next(path for path in (tmp_path / "data/windows.zarr/training/0/item/c").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[3] ^= 16
    shard.write_bytes(content)
    delivered = {seed: batches_before_damage(tmp_path / "data", seed) for seed in range(8)}
    seed = max(delivered, key=lambda seed: delivered[seed])
    assert delivered[seed] > 1
    with pytest.raises(DamagedError):
        drain(train_steps(tmp_path / "data", tmp_path / "run", {**GIVEN, "checkpoint_every": 500, "seed": seed}))
    assert numbers(tmp_path / "run")[-1]["step"] == delivered[seed]
    checkpoint, _ = Checkpoints(tmp_path / "run").load_newest()
    assert checkpoint is not None
    assert checkpoint.state.step == checkpoint.state.stream.position == delivered[seed]


@pytest.mark.parametrize(
    ("given", "said"),
    [({"monitor": "foo"}, "foo"), ({"width": 2**15, "layers": 8}, "needs about"), ({"live_disk": 10**10}, "--live")],
)
@pytest.mark.parametrize("how", ["overwrite", "resume"])
def test_a_refused_run_leaves_the_one_that_is_there(
    tmp_path: Path, tiny_dataset: Path, undisturbed: dict[tuple[str, str], Path], given: dict[str, Any], said: str,
    how: str,
) -> None:  # fmt: skip
    """Whole, with its configuration: neither is it deleted for another, nor goes it on otherwise next time."""
    run = shutil.copytree(undisturbed["causal", "disjoint"], tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    wrong = given if how == "overwrite" or "monitor" in given else {"patience": 99, "live_disk": 10**10}
    with pytest.raises(ConfigError, match=said if how == "overwrite" else "foo|--live"):
        drain(train_steps(tiny_dataset, run, {**GIVEN, **wrong}, **{how: True}))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_session_is_ready_when_it_is_opened_and_its_position_is_that_of_the_steps(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    """No call must come before the first step. The batch that was looked ahead at is not counted before its step."""
    with (
        exact_arithmetic(),
        joined() as world,
        open_run_together(world, tiny_dataset, tmp_path / "run", GIVEN) as run,
        open_session(run, world, stop=lambda: False) as session,
    ):
        for step in range(1, 4):
            assert any(isinstance(report, Stepped) for report in session.advance())
            assert any(isinstance(report, Saved) for report in session.save())
            state = read_checkpoint(Checkpoints(run.path).path(step)).state
            assert (state.step, state.stream.position) == (step, step)


def batches_before_damage(dataset: Path, seed: int) -> int:
    num_batches = 0
    with WindowStream(dataset, objective="causal", batch_windows=3, seed=seed) as stream:
        try:
            for _ in stream:
                num_batches += 1
        except DamagedError:
            return num_batches
    raise AssertionError("no damage was noticed")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_resumed_on_a_gpu_agrees_to_a_tolerance(tmp_path: Path, tiny_dataset: Path) -> None:
    """bfloat16 and atomic additions leave rounding; dropout's masks are the same."""
    given = {**GIVEN, "width": 32}  # heads of 16, the narrowest that a GPU takes
    drain(train_steps(tiny_dataset, tmp_path / "whole", given))
    asked: list[bool] = []
    stop_after(7, train_steps(tiny_dataset, tmp_path / "run", given, stop=lambda: bool(asked)), asked)
    drain(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    whole = [line["loss"] for line in numbers(tmp_path / "whole")]
    assert [line["loss"] for line in numbers(tmp_path / "run")] == pytest.approx(whole, rel=2e-2)


def test_exact_arithmetic_ends_with_the_run() -> None:
    """What training sets in torch, it takes back."""
    flags = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with exact_arithmetic():
        assert torch.are_deterministic_algorithms_enabled() is not torch.cuda.is_available()
    assert flags == (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
