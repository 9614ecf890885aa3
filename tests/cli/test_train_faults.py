"""`train`, really killed at the worst moments: the resumed run equals an undisturbed one. A child process runs the
command with one of our functions wrapped, so that it kills itself exactly there."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import streamfeat_cli
from streamfeat import WindowStream
from train.runs.checkpoint import Checkpoints
from train.runs.metrics import read_metrics
from train.training.loop import train_steps

ROOT = Path(__file__).parents[2]
# Six steps an epoch: epochs end at 6 and 12, validations too; the checkpoint at 8 is none's neighbour.
OPTIONS = [
    "--layers", "1", "--width", "16", "--batch-tokens", "100", "--steps", "14", "--checkpoint-every", "4",
    "--validate-every", "6",
]  # fmt: skip

KILLER = """
import importlib, os, signal, sys

where, number, name, *words = sys.argv[1:]
module, _, path = where.partition(":")
*owners, function = path.split(".")
owner = importlib.import_module(module)
for part in owners:
    owner = getattr(owner, part)
original, calls = getattr(owner, function), []
when, _, signal_name = name.partition("-")

def wrapped(*arguments, **named):
    calls.append(1)
    if len(calls) == int(number) and when == "before":
        os.kill(os.getpid(), getattr(signal, signal_name))
    result = original(*arguments, **named)
    if len(calls) == int(number) and when == "after":
        os.kill(os.getpid(), getattr(signal, signal_name))
    return result

setattr(owner, function, wrapped)
import streamfeat_cli
sys.argv = ["cli.py", *words]
streamfeat_cli.main()
"""


def killed(
    dataset: Path, run: Path, where: str, number: int, when: str, *more: str
) -> subprocess.CompletedProcess[str]:
    """Runs `train --resume` and kills it at the `number`-th call of the function at `where`; `when`:
    before-SIGKILL, …"""
    words = ["train", str(dataset), str(run), *OPTIONS, "--resume", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", KILLER, where, str(number), when, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, because sums of floats depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """The same run without faults."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = killed(tiny_dataset, run, "train.training.loop:never", 1, "before-SIGKILL")  # which the command never calls
    assert done.returncode == 0, done.stderr
    return run


def assert_same(run: Path, other: Path) -> None:
    """Metrics, weights and the optimizer's state, to the bit; which checkpoint is the best."""
    times = ("tokens_per_s", "wait_share")
    mine, theirs = (
        [{k: v for k, v in line.items() if k not in times} for line in read_metrics(r)] for r in (run, other)
    )
    assert mine == theirs
    for name in ("latest", "best"):
        assert (run / name).read_text() == (other / name).read_text()
    last = (other / "latest").read_text().strip()
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (run / last / name).read_bytes() == (other / last / name).read_bytes()
    assert [path for path in (run / "checkpoints").iterdir() if path.name.endswith(".tmp")] == []


# Function, its n-th call, when; and what of it a run goes on from: the step of its newest whole checkpoint.
SAVING = [
    (
        "train.runs.checkpoint:_tensor_bytes",
        3,
        "before-SIGKILL",
        4,
    ),  # between temporary folder and the second one's files
    ("train.runs.checkpoint:_tensor_bytes", 4, "after-SIGKILL", 4),  # weights written, optimizer not
    ("train.runs.checkpoint:Checkpoints._publish", 2, "before-SIGKILL", 4),  # whole, under its temporary name
    ("train.runs.checkpoint:Checkpoints._publish", 2, "after-SIGKILL", 6),  # renamed, `latest` names the one before
    ("train.runs.checkpoint:Checkpoints._marked_best", 2, "before-SIGKILL", 6),
    ("train.runs.checkpoint:Checkpoints._forget_old", 3, "before-SIGKILL", 8),  # one more than are kept
]
EPOCH_ENDS = [
    ("train.training.update:Updater.apply", 6, "after-SIGKILL", 4),  # the epoch's last step is applied, not logged
    ("train.runs.metrics:MetricsLog.append", 6, "after-SIGKILL", 4),  # and logged, not validated
    ("train.training.session:Session.save", 2, "before-SIGKILL", 4),  # and validated, not saved
    ("train.training.update:Updater.apply", 7, "before-SIGKILL", 6),  # saved; the next epoch's first batch is read
]
VALIDATING = [
    ("train.model.transformer:EventTransformer.target_losses", 1, "before-SIGKILL", 4),  # at its first batch
    ("train.model.transformer:EventTransformer.target_losses", 2, "after-SIGKILL", 4),
]


BEFORE_THE_FIRST_STEP = [
    ("train.runs.folder:write_record", 1, "after-SIGKILL"),  # config.json names the run whose weights it needs again
    ("train.runs.checkpoint:Checkpoints._publish", 1, "before-SIGKILL"),  # the first checkpoint has no name yet
    ("train.model.transformer:EventTransformer.target_losses", 1, "before-SIGKILL"),  # now the run needs no other
]


def hurt_and_resumed(dataset: Path, run: Path, moment: tuple[str, int, str, int]) -> None:
    where, number, when, step = moment
    done = killed(dataset, run, where, number, when)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
    newest, problems = Checkpoints(run).load_newest()
    assert problems == []
    assert newest is not None
    assert newest.state.step == step


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=() if i == 1 else pytest.mark.slow) for i, m in enumerate(SAVING)]
)
def test_a_run_killed_while_it_saves_goes_on_to_the_bit(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, moment: tuple[str, int, str, int]
) -> None:
    """At each stage of saving: this checkpoint or the one before is complete, and no temporary file stays."""
    run = tmp_path / "run"
    where, number, when, _ = moment
    done = killed(tiny_dataset, run, where, number, when)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
    list(train_steps(tiny_dataset, run, resume=True))
    assert_same(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", EPOCH_ENDS)
def test_a_run_killed_exactly_at_the_end_of_an_epoch_goes_on_to_the_bit(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, moment: tuple[str, int, str, int]
) -> None:
    """No epoch is skipped or repeated, whether step, log, validation or checkpoint was the last action."""
    hurt_and_resumed(tiny_dataset, tmp_path / "run", moment)
    list(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", VALIDATING)
def test_a_run_killed_while_it_validates_goes_on_to_the_bit(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, moment: tuple[str, int, str, int]
) -> None:
    """The validation is done again."""
    hurt_and_resumed(tiny_dataset, tmp_path / "run", moment)
    list(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", BEFORE_THE_FIRST_STEP)
def test_a_run_killed_before_the_first_step_from_carried_weights_goes_on_to_the_bit(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, moment: tuple[str, int, str]
) -> None:
    """The other run is read again only if there is no checkpoint yet."""
    where, number, when = moment
    done = killed(tiny_dataset, tmp_path / "run", where, number, when, "--from", str(undisturbed))
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
    list(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    list(train_steps(tiny_dataset, tmp_path / "whole", start_from=undisturbed))
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)])
def test_a_signal_inside_a_step_saves_that_step_and_the_run_goes_on_to_the_bit(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, number: str, code: int
) -> None:
    """During the fifth step's forward pass: the step is finished and saved, and no other begins."""
    run = tmp_path / "run"
    calls = 1 + 5  # the first measures the memory of a pass
    done = killed(tiny_dataset, run, "train.model.transformer:EventTransformer.loss_sums", calls, f"after-{number}")
    assert done.returncode == code, done.stderr
    assert (run / "latest").read_text() == "checkpoints/step-00000005\n"
    assert [line["step"] for line in read_metrics(run) if line["kind"] == "train"] == [1, 2, 3, 4, 5]
    assert "stopped after step 5; continue with: " in done.stderr
    list(train_steps(tiny_dataset, run, resume=True))
    assert_same(run, undisturbed)


def test_a_run_that_cannot_fit_exits_2_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_dataset: Path
) -> None:
    """Before a model of two terabytes is created, and as fast with --dry-run."""
    huge = ["--width", "65536", "--layers", "8", "--heads", "2"]
    for place in ([str(tmp_path / "run")], ["--dry-run"]):
        monkeypatch.setattr(sys, "argv", ["cli.py", "train", str(tiny_dataset), *place, *huge])
        with pytest.raises(SystemExit) as exit_:
            streamfeat_cli.main()
        assert exit_.value.code == 2
        shown = capsys.readouterr().err
        assert "needs about" in shown
        assert "lower --width to" in shown
        assert "--force" in shown


def two_ranks(*words: str | Path) -> subprocess.CompletedProcess[Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(ROOT / "cli.py"), "train", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.slow
def test_the_bad_steps_of_two_ranks_name_the_windows_of_both(tmp_path: Path, tiny_dataset: Path) -> None:
    """Together they are the global batch of the recorded state. There is one file, written by rank 0."""
    run = tmp_path / "run"
    shape = ["--layers", "1", "--width", "16", "--batch-tokens", "128", "--steps", "40"]
    done = two_ranks(tiny_dataset, run, *shape, "--learning-rate", "1e30")
    assert "bad-steps.jsonl" in done.stderr
    lines = [json.loads(line) for line in (run / "bad-steps.jsonl").read_text().splitlines()]
    assert len(lines) >= 10
    assert len({line["step"] for line in lines}) == len(lines)
    stream = WindowStream(tiny_dataset, objective="causal", batch_windows=4, hidden_times=0.3)
    for line in lines:
        stream.load_state_dict(line["stream"])
        batch = next(iter(stream))
        both = sorted(line["windows"]["0"] + line["windows"]["1"])
        assert line["windows"].keys() == {"0", "1"}
        assert both == sorted(int(window) for window in batch["window"] if window >= 0)
