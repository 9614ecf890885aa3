"""`train --live` and `build-shards --live` as a user types them: real processes, really killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from processes import assert_session_ends, children_of, command_line

from streamfeat.builder.coordinator import build_shards
from train.runs.metrics import read_metrics

ROOT = Path(__file__).parents[2]
SMALL = ["--layers", "1", "--width", "16", "--batch-tokens", "96", "--patience", "0", "--checkpoint-every", "5"]
SHORT = [*SMALL, "--epochs", "3"]
_started: list[int] = []  # each the leader of a session of its own
BUILD = ["--window-len", "32", "--split", "users:0.2", "--chunk-windows", "2", "--shard-windows", "8"]


def command(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), name, *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, because the bits of a sum depend on the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}


def call(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    process = start(name, *arguments)
    stdout, stderr = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def start(name: str, *arguments: str | Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command(name, *arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    _started.append(process.pid)
    return process


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count('"train"') < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)


def numbers(run: Path) -> list[dict[str, Any]]:
    times = ("tokens_per_s", "wait_share")
    return [{key: value for key, value in line.items() if key not in times} for line in read_metrics(run)]


def learned(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / (run / "latest").read_text().strip() / "model.safetensors")


def assert_same(run: Path, other: Path) -> None:
    """Equal to the bit."""
    assert numbers(run) == numbers(other)
    mine, theirs = learned(run), learned(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """Three epochs from three packings that were built beforehand."""
    folder = tmp_path_factory.mktemp("stored")
    events = tiny_dataset.parent / "events.csv"
    options = {"window_len": 32, "split": "users:0.2", "chunk_windows": 2, "shard_windows": 8}
    build_shards([str(events)], folder / "data", packings=3, **options)
    done = call("train", folder / "data", folder / "run", *SHORT)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def dataset(tmp_path: Path, tiny_dataset: Path) -> Path:
    """The same events with no packing at all."""
    events = tiny_dataset.parent / "events.csv"
    done = call("build-shards", events, tmp_path / "data", *BUILD, "--packings", "0", "--workers", "1")
    assert done.returncode == 0, done.stderr
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    """A killed process's producers end with it."""
    yield
    while _started:
        assert_session_ends(_started.pop())


@pytest.mark.slow
def test_a_live_run_learns_to_the_bit_what_one_on_stored_packings_does(dataset: Path, stored_run: Path) -> None:
    """Epoch e reads packing e in both cases. No file of the run is left in OUT/live."""
    run = dataset.parent / "run"
    done = call("train", dataset, run, "--live", "--live-workers", "1", *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "finished"
    assert_same(run, stored_run)
    assert [path.name for path in (dataset / "live").iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_live_run_killed_inside_an_epoch_goes_on_at_the_same_batch(dataset: Path, stored_run: Path) -> None:
    """Twice. The resumed run needs no --live, and removes the folder of the dead one."""
    run = dataset.parent / "run"
    for step in (3, 8):  # of 18
        extra = ["--live", "--live-workers", "1", *SHORT] if step == 3 else []
        process = start("train", dataset, run, *extra, "--resume")
        wait_for_step(run, step, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert len([path for path in (dataset / "live").iterdir() if path.is_dir()]) == 1
    done = call("train", dataset, run, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(run, stored_run)
    assert [path.name for path in (dataset / "live").iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_producers_in_another_terminal_build_wait_write_and_stop(tiny_dataset: Path, tmp_path: Path) -> None:
    """`build-shards --live` from nothing: the build, the wait for a run, its shards, and exit 0 when it ends."""
    events, data, run = tiny_dataset.parent / "events.csv", tmp_path / "data", tmp_path / "run"
    producers = start("build-shards", events, data, *BUILD, "--workers", "1", "--live", "--json")
    deadline = time.monotonic() + 180
    while not (data / "dataset.json").exists():
        assert time.monotonic() < deadline
        assert producers.poll() is None, producers.communicate()
        time.sleep(0.05)
    assert not (data / "windows.zarr/training/0").exists()
    done = call("train", data, run, "--live", "--live-workers", "0", *SHORT)
    assert done.returncode == 0, done.stderr
    stdout, stderr = producers.communicate(timeout=60)
    assert producers.returncode == 0, stderr
    assert "waiting for a run" in stderr
    assert "has ended; 6 shards written" in stderr
    assert json.loads(stdout)["shards_served"] == 6


@pytest.mark.slow
def test_a_run_without_producers_says_what_it_waits_for_and_gives_up_in_time(dataset: Path) -> None:
    """Exit code 6, with the shard and the remedy. A run without a step does not block the next one."""
    run = dataset.parent / "run"
    done = call("train", dataset, run, "--live", "--live-workers", "0", "--live-timeout", "6", *SHORT)
    assert done.returncode == 6
    assert "s for shard " in done.stderr
    assert "of packing 0" in done.stderr
    assert "--live-workers" in done.stderr
    assert "is saved" not in done.stderr
    assert not (run / "config.json").exists()


@pytest.mark.slow
def test_live_options_without_live_are_refused(dataset: Path) -> None:
    """Otherwise, with a forgotten --live, the run would train on stored packings."""
    done = call("train", dataset, dataset.parent / "run", "--live-workers", "2", *SHORT)
    assert done.returncode == 2
    assert "--live-workers: belongs to live training" in done.stderr


@pytest.mark.slow
def test_a_signal_stops_a_run_that_waits_for_a_shard(dataset: Path) -> None:
    """Ctrl-C also works while no shard comes."""
    run = dataset.parent / "run"
    process = start("train", dataset, run, "--live", "--live-workers", "0", *SHORT)
    deadline = time.monotonic() + 180
    while not (run / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "--resume" in shown
    assert [path.name for path in (dataset / "live").iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_disk_cap_that_cannot_do_is_refused_with_one_that_can(dataset: Path) -> None:
    """Exit code 2 with the needed number of bytes; no run is left."""
    run = dataset.parent / "run"
    done = call("train", dataset, run, "--live", "--live-disk", "10KB", *SHORT)
    assert done.returncode == 2
    assert "--live-disk 10000" in done.stderr
    assert not (run / "config.json").exists()


@pytest.mark.slow
def test_a_dataset_without_packings_is_refused_by_a_run_that_is_not_live(dataset: Path) -> None:
    """Both remedies are named."""
    done = call("train", dataset, dataset.parent / "run", *SHORT)
    assert done.returncode == 2
    assert "--live" in done.stderr
    assert "run build-shards on it without --live" in done.stderr


def test_live_and_packings_exclude_each_other(tmp_path: Path, tiny_dataset: Path) -> None:
    """Before anything is read."""
    events = tiny_dataset.parent / "events.csv"
    done = call("build-shards", events, tmp_path / "data", "--live", "--packings", "2")
    assert done.returncode == 2
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_two_ranks_train_live_and_a_killed_one_is_made_up_for(dataset: Path, tiny_dataset: Path) -> None:
    """With torchrun, a rank is killed inside an epoch; the restart ends with the losses of the stored run."""
    run = dataset.parent / "run"
    batch = ["--batch-tokens", "128"]  # four windows: two lanes or more for each rank
    stored = dataset.parent / "stored"
    events = tiny_dataset.parent / "events.csv"
    build = call("build-shards", events, stored, *BUILD, "--packings", "3", "--workers", "1")
    assert build.returncode == 0, build.stderr
    expected = call("train", stored, dataset.parent / "expected", *SHORT, *batch)
    assert expected.returncode == 0, expected.stderr
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    again = [*ranks, *command("train", dataset, run, "--live-workers", "1")[1:]]
    with subprocess.Popen(
        [*again, "--live", *SHORT, *batch], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_step(run, 3, process)
        victim = max(pid for pid in children_of(process.pid) if b"cli.py" in command_line(pid))
        os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=200)
    done = subprocess.run([*again, "--resume"], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for mine, theirs in zip(numbers(run), numbers(dataset.parent / "expected"), strict=True):
        assert mine.pop("kind") == theirs.pop("kind")
        assert mine == pytest.approx(theirs, rel=2e-5, abs=1e-6)
