"""`cli.py train` as a user types it: exit codes, real signals, real kills."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import streamfeat_cli
from train.runs.metrics import read_metrics

ROOT = Path(__file__).parents[2]
SMALL = ["--layers", "1", "--width", "16", "--batch-tokens", "96", "--validate-every", "20"]
LONG = [*SMALL, "--steps", "100000", "--checkpoint-every", "7"]  # stopped from outside
SHORT = [*SMALL, "--steps", "60", "--checkpoint-every", "7"]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), "train", *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, because the bits of a sum depend on the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Waits until the run has logged `step` training steps."""
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count('"train"') < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["cli.py", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        streamfeat_cli.main()
    return int(exit_.value.code or 0)


def numbers(run: Path) -> list[dict[str, Any]]:
    times = ("tokens_per_s", "wait_share")
    return [{key: value for key, value in line.items() if key not in times} for line in read_metrics(run)]


def assert_same(run: Path, other: Path) -> None:
    """Bit for bit: the metrics that count, the last weights, the optimizer."""
    assert numbers(run) == numbers(other)
    latest = (run / "latest").read_text()
    assert latest == (other / "latest").read_text()
    for name in ("model.safetensors", "optimizer.safetensors"):
        mine, theirs = (safetensors.torch.load_file(folder / latest.strip() / name) for folder in (run, other))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A run of `SHORT` without interruptions, and its output."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finished = call(tiny_dataset, run, *SHORT, "--json")
    assert finished.returncode == 0, finished.stderr
    (run.parent / "stdout").write_text(finished.stdout)
    (run.parent / "stderr").write_text(finished.stderr)
    return run


def test_json_is_one_object_on_stdout(undisturbed: Path) -> None:
    """Everything else is on stderr: the size of a batch, validations, the bar."""
    summary = json.loads((undisturbed.parent / "stdout").read_text())
    assert (summary["result"], summary["step"], summary["steps"]) == ("finished", 60, 60)
    assert summary["checkpoint"] == str(undisturbed / "checkpoints/step-00000060")
    tasks = {"anime_watch", "anime_rating", "manga_watch", "manga_rating"}
    assert summary["validation"]["losses"].keys() == summary["baselines"].keys() == tasks
    assert all(summary["validation_users"][task] > 0 for task in tasks)
    last = read_metrics(undisturbed)[-1]
    assert (last["kind"], last["loss"]) == ("validation", summary["validation"]["loss"])
    shown = (undisturbed.parent / "stderr").read_text()
    assert "batches of 3 windows × 32 = 96 tokens" in shown
    assert "step 20: validation loss" in shown


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_saves_and_the_printed_command_goes_on(
    tmp_path: Path, tiny_dataset: Path, number: signal.Signals, code: int
) -> None:
    """The current step is finished and saved. The printed command resumes the run, exactly as printed."""
    run = tmp_path / "a run"
    process = start(tiny_dataset, run, *LONG, "--force")
    wait_for_step(run, 10, process)
    process.send_signal(number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == code, shown
    step = read_metrics(run)[-1]["step"]
    assert (run / "latest").read_text() == f"checkpoints/step-{step:08d}\n"
    assert f"train {tiny_dataset} '{run}' --resume --force" in shown.replace("\n", "")


def test_a_run_that_python_m_started_goes_on_by_python_m(tmp_path: Path, tiny_dataset: Path) -> None:
    """If `streamfeat/__main__.py` were run as a script, Python would import `streamfeat/torch.py` as torch."""
    words = [sys.executable, "-m", "streamfeat", "train", str(tiny_dataset), "run", *LONG]
    process = subprocess.Popen(
        words, cwd=tmp_path, env={**environment(), "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    wait_for_step(tmp_path / "run", 2, process)
    process.terminate()
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 143, shown
    assert f"continue with: python -m streamfeat train {tiny_dataset} run --resume" in shown.replace("\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "num_kills"), [(0, 1), *(pytest.param(seed, 3, marks=pytest.mark.slow) for seed in range(1, 9))]
)
def test_a_run_killed_at_any_moment_and_resumed_is_the_run_that_was_not(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, seed: int, num_kills: int
) -> None:
    """SIGKILL inside an epoch, at random moments from a seed: the same losses, the same weights."""
    rng, run = random.Random(seed), tmp_path / "run"
    for step in sorted(rng.sample(range(3, 50), num_kills)):
        metrics = run / "metrics.jsonl"
        logged = metrics.read_text().count('"train"') if metrics.exists() else 0
        process = start(tiny_dataset, run, *SHORT, "--resume")
        wait_for_step(run, max(step, logged + 1), process)  # the kill before may have come later than it was to
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
    finished = call(tiny_dataset, run, "--resume")
    assert finished.returncode == 0, finished.stderr
    assert_same(run, undisturbed)


def test_another_option_on_resume_exits_2_with_both_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_dataset: Path, undisturbed: Path
) -> None:
    """Only typed options count. Defaults that differ from the saved run are not an error."""
    assert exit_code(monkeypatch, tiny_dataset, undisturbed, "--resume", "--width", "32", "--seed", "0") == 2
    shown = capsys.readouterr().err
    assert "--width: saved 16, given 32" in shown
    assert "--seed" not in shown
    assert exit_code(monkeypatch, tiny_dataset, undisturbed, "--resume", "--threads", "2", "--json") == 0
    assert "nothing to do" in capsys.readouterr().err


def test_a_run_is_not_trained_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_dataset: Path, undisturbed: Path
) -> None:
    """Exit code 2, with both remedies."""
    before = (undisturbed / "metrics.jsonl").read_bytes()
    assert exit_code(monkeypatch, tiny_dataset, undisturbed) == 2
    shown = capsys.readouterr().err
    assert "--resume" in shown
    assert "--overwrite" in shown
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


def test_a_run_that_diverges_exits_8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_dataset: Path
) -> None:
    """The message names the last checkpoint and the remedy."""
    options = [*SMALL, "--steps", "40", "--learning-rate", "1e30", "--checkpoint-every", "1"]
    assert exit_code(monkeypatch, tiny_dataset, tmp_path / "run", *options) == 8
    shown = capsys.readouterr().err.replace("\n", "")
    assert "checkpoints/step-" in shown
    assert "--learning-rate" in shown


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_dataset: Path
) -> None:
    """Exit 2 before anything is written."""
    assert exit_code(monkeypatch, tiny_dataset, tmp_path / "run", "--tensorboard") == 2
    assert f"pip install -e '{ROOT}[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "5", "--epochs", "2"], "contradict"),
        (["--heads", "3"], "multiple of heads"),
        (["--dropout", "1.5"], "dropout"),
        (["--preset", "huge"], "huge"),
        (["--objective", "diffusion"], "diffusion"),
    ],
)
def test_options_that_cannot_be_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_dataset: Path,
    options: list[str], message: str,
) -> None:  # fmt: skip
    """Usage errors come from us or from typer; both give the exit code and a message."""
    assert exit_code(monkeypatch, tiny_dataset, tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_loads_torch_only_to_train() -> None:
    """Loading torch takes two seconds, also for --help and other commands; `import train` does not load it."""
    code = "import sys, streamfeat_cli, train; train.TrainConfig; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_folder_without_a_dataset_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The remedy is the command that builds one."""
    assert exit_code(monkeypatch, tmp_path, tmp_path / "run") == 2
    assert "build-shards" in capsys.readouterr().err


def test_a_file_sets_options_and_typed_ones_win(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_dataset: Path
) -> None:
    """config.json holds the used values. An unknown key gives exit code 2 with the closest name."""
    file, run = tmp_path / "run.toml", tmp_path / "run"
    file.write_text("batch_tokens = 96\nepochs = 9\n[model]\nlayers = 1\nwidth = 16\n")
    assert exit_code(monkeypatch, tiny_dataset, run, "--config", file, "--steps", "2", "--width", "24") == 0
    asked = json.loads((run / "config.json").read_text())["train"]
    assert (asked["batch_tokens"], asked["steps"]) == (96, 2)
    assert (asked["model"]["layers"], asked["model"]["width"]) == (1, 24)
    file.write_text("epohcs = 9")
    assert exit_code(monkeypatch, tiny_dataset, tmp_path / "other", "--config", file) == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err


def test_a_dry_run_prints_what_a_run_would_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_dataset: Path
) -> None:
    """Parameters, memory, steps, tokens, expected time; as JSON with --json. It needs no run folder."""
    assert exit_code(monkeypatch, tiny_dataset, "--dry-run", *SMALL) == 0
    shown = capsys.readouterr().out
    for name in ("parameters", "memory of a rank", "steps", "tokens", "expected time"):
        assert name in shown
    assert exit_code(monkeypatch, tiny_dataset, "--dry-run", "--json", *SMALL) == 0
    assert json.loads(capsys.readouterr().out)["timed_steps"] == 10


def test_a_run_without_a_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_dataset: Path
) -> None:
    """Only a dry run needs no folder."""
    assert exit_code(monkeypatch, tiny_dataset, *SMALL) == 2
    assert "train DATA RUN" in capsys.readouterr().err
