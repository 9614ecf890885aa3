"""Several ranks: torchrun, real processes, gloo. They train the same model, and a lost rank stops all of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from edited_manifests import edit_manifest
from processes import children_of, command_line, is_running

from streamfeat.errors import ConfigError
from streamfeat.store.manifest import load_manifest
from train.devices.launch import Launch, launched
from train.devices.ranks import joined
from train.runs.checkpoint import Checkpoints
from train.runs.metrics import read_metrics

ROOT = Path(__file__).parents[3]
# 24 of tiny_dataset's 32-token windows: the lanes divide among 1, 2, 3 and 4 ranks; the last batch of an epoch holds
# empty windows only for some of them. Passes of two windows: gradients add up before they are exchanged.
OPTIONS = [
    "--layers", "1", "--width", "16", "--batch-tokens", "768", "--micro-batch-tokens", "64", "--steps", "6",
    "--validate-every", "3", "--checkpoint-every", "2", "--keep", "9",
]  # fmt: skip
LONG = [*OPTIONS[:-6], "--validate-every", "50", "--checkpoint-every", "5", "--steps", "100000"]


def torchrun(ranks: int, *arguments: str | Path) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, str(ROOT / "cli.py"), "train", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}


def call(ranks: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = torchrun(ranks, *arguments)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=240)


def losses(run: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Every loss of a run, including its baselines, by kind and step."""
    return {
        (line["kind"], line["step"]): {name: x for name, x in line.items() if name.startswith(("loss", "baseline"))}
        for line in read_metrics(run)
    }


def assert_agree(run: Path, other: Path) -> None:
    """Every loss of every step agrees within a tolerance of float32, and so do the weights."""
    mine, theirs = losses(run), losses(other)
    assert mine.keys() == theirs.keys()
    for key, values in mine.items():
        assert values == pytest.approx(theirs[key], rel=2e-5, abs=1e-6), key
    (left, _), (right, _) = Checkpoints(run).load_newest(), Checkpoints(other).load_newest()
    assert left is not None
    assert right is not None
    for name, weight in left.weights.items():
        torch.testing.assert_close(weight, right.weights[name], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="session")
def run_of_one(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A run of one process."""
    run = tmp_path_factory.mktemp("ranks") / "run"
    command = [sys.executable, str(ROOT / "cli.py"), "train", str(tiny_dataset), str(run), *OPTIONS]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="session")
def run_of_two(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> tuple[Path, Any]:
    """The same on two ranks, and its output."""
    run = tmp_path_factory.mktemp("ranks") / "run"
    done = call(2, tiny_dataset, run, *OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    return run, done


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(run_of_one: Path, run_of_two: tuple[Path, Any]) -> None:
    """The same global batches, losses and validation figures, within float tolerance."""
    assert_agree(run_of_one, run_of_two[0])


@pytest.mark.slow
def test_rank_0_alone_prints(run_of_two: tuple[Path, Any]) -> None:
    """One JSON object on stdout; each validation is printed once; the number of ranks is shown."""
    _, done = run_of_two
    assert json.loads(done.stdout)["result"] == "finished"
    assert done.stderr.count("step 3: validation loss") == 1
    assert done.stderr.count("2 ranks") == 1
    assert "find_unused_parameters" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 4])
def test_a_run_of_two_ranks_goes_on_with_another_number(
    tmp_path: Path, tiny_dataset: Path, run_of_one: Path, run_of_two: tuple[Path, Any], ranks: int
) -> None:
    """Saved at world size 2 inside an epoch, resumed at 1 and at 4: the same losses at every later step."""
    run = tmp_path / "run"
    shutil.copytree(run_of_two[0], run)
    for folder in sorted((run / "checkpoints").iterdir())[1:]:
        shutil.rmtree(folder)  # back to step 2
    done = call(ranks, tiny_dataset, run, "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr
    assert_agree(run_of_one, run)


@pytest.mark.slow
def test_four_ranks_learn_what_one_does(tmp_path: Path, tiny_dataset: Path, run_of_one: Path) -> None:
    """More ranks than cores, and than windows in an epoch's last batch."""
    done = call(4, tiny_dataset, tmp_path / "run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert_agree(run_of_one, tmp_path / "run")


@pytest.mark.slow
def test_two_ranks_start_with_the_weights_of_another_run_as_one_does(
    tmp_path: Path, tiny_dataset: Path, run_of_one: Path
) -> None:
    """Rank 0 alone reads them. The first checkpoints are equal to the bit, the rest to float tolerance."""
    for ranks in (1, 2):
        done = call(ranks, tiny_dataset, tmp_path / str(ranks), "--from", run_of_one)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("starting with the weights of") == 1
    first = "checkpoints/step-00000000/model.safetensors"
    assert (tmp_path / "1" / first).read_bytes() == (tmp_path / "2" / first).read_bytes()
    assert_agree(tmp_path / "1", tmp_path / "2")


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count('"train"') < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.02)


def children(process: subprocess.Popen[str]) -> list[int]:
    """The ranks' processes, by rank: torchrun starts them in that order."""
    return sorted(pid for pid in children_of(process.pid) if b"cli.py" in command_line(pid))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_stops_all_and_is_named_and_a_restart_resumes(
    tmp_path: Path, tiny_dataset: Path, victim: int
) -> None:
    """Within a minute, no process left; the run goes on from its last checkpoint."""
    run = tmp_path / "run"
    with subprocess.Popen(
        torchrun(2, tiny_dataset, run, *LONG), env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for_step(run, 12, process)
        ranks = children(process)
        os.kill(ranks[victim], signal.SIGKILL)
        killed = time.monotonic()
        _, shown = process.communicate(timeout=200)
    assert time.monotonic() - killed < 200
    assert process.returncode != 0
    assert f"rank {victim} (process {ranks[victim]} on " in shown
    assert not any(is_running(pid) for pid in ranks)
    again = subprocess.Popen(
        torchrun(2, tiny_dataset, run, "--resume"), env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_step(run, 20, again)
    again.send_signal(signal.SIGTERM)
    _, shown = again.communicate(timeout=200)
    assert "resuming from" in shown
    again_line = f"torchrun --nproc-per-node 2 {ROOT / 'cli.py'} train {tiny_dataset} {run} --resume"
    assert again_line in shown.replace("\n", "")


@pytest.mark.slow
def test_ranks_that_cannot_share_the_batch_are_refused_with_those_that_can(tmp_path: Path, tiny_dataset: Path) -> None:
    """Two ranks, a batch of three windows: no rank hangs, and the possible world sizes are printed once."""
    done = call(2, tiny_dataset, tmp_path / "run", "--batch-tokens", "96", "--steps", "2")
    assert done.returncode != 0
    assert done.stderr.count("use a world size of 1, 3") == 1


@pytest.mark.slow
def test_an_error_of_rank_0_ends_every_rank(tmp_path: Path, tiny_dataset: Path, run_of_one: Path) -> None:
    """A folder that holds a run: the error is printed once, and no rank waits."""
    started = time.monotonic()
    done = call(2, tiny_dataset, run_of_one, *OPTIONS)
    assert time.monotonic() - started < 200
    assert done.returncode != 0
    assert done.stderr.count("holds a run already") == 1
    codes = re.findall(r"exitcode  : (\S+)", done.stderr)  # torchrun ends the other one where it is quicker
    assert "2" in codes
    assert set(codes) <= {"2", f"-{signal.SIGTERM:d}"}


@pytest.mark.slow
def test_a_chunk_that_one_rank_finds_damaged_is_what_all_end_by(tmp_path: Path, tiny_dataset: Path) -> None:
    """The rank that reads it names it. No message says that the run can simply be resumed."""
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    shard = data / "windows.zarr/training/0/item/c/1/0"
    content = bytearray(shard.read_bytes())
    content[10] ^= 1  # of its first chunk
    shard.write_bytes(content)
    done = call(2, data, tmp_path / "run", *OPTIONS[:4], "--batch-tokens", "128", "--steps", "40")
    assert done.returncode != 0
    assert re.search(r"training/0/item, chunk \d+, shard file .*/item/c/1/0: ", done.stderr)
    assert "the chunk does not match its crc32c" in done.stderr
    assert "stopped after step" not in done.stderr


IN_PLACES_OF_THEIR_OWN = """
import os, sys
os.chdir(sys.argv[1] + "/" + os.environ["RANK"])
sys.argv = ["cli.py", *sys.argv[2:]]
import streamfeat_cli
streamfeat_cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("other", ["another", "none"])
def test_ranks_of_several_machines_have_the_same_dataset_or_none_trains(
    tmp_path: Path, tiny_dataset: Path, other: str
) -> None:
    """Each machine has its own copy: that of rank 1 is another dataset, or missing. The error names both."""
    script = tmp_path / "script.py"
    script.write_text(IN_PLACES_OF_THEIR_OWN)
    for rank in "01":
        (tmp_path / rank).mkdir()
    shutil.copytree(tiny_dataset, tmp_path / "0/data")
    if other == "another":
        shutil.copytree(tiny_dataset, tmp_path / "1/data")
        edit_manifest(tmp_path / "1/data", lambda values: values.update(fingerprint="0" * 64))
    command = torchrun(2)
    command[-2:] = [str(script), str(tmp_path), "train", "data", str(tmp_path / "run"), *OPTIONS]
    done = subprocess.run(
        command, env={**environment(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=240,
    )  # fmt: skip
    assert done.returncode != 0
    if other == "another":
        assert "error: rank 1: data: is another dataset (fingerprint 0000" in done.stderr
        assert f"than rank 0's (fingerprint {load_manifest(tiny_dataset).fingerprint}" in done.stderr
    else:
        assert "error: rank 1: data: no finished dataset here" in done.stderr
    assert not (tmp_path / "run/config.json").exists()


VARIABLES = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_the_place_of_a_process_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of torchrun's variables, or none: other programs set WORLD_SIZE, too."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched() == Launch()
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert launched() == Launch(1, 4, 0)


@pytest.mark.parametrize(("name", "value"), [("RANK", "4"), ("RANK", "-1"), ("WORLD_SIZE", "x"), ("LOCAL_RANK", "-2")])
def test_an_environment_that_names_no_rank_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The error shows the variables."""
    for variable, good in VARIABLES.items():
        monkeypatch.setenv(variable, good)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        launched()


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any rank waits for the others."""
    for name, value in {**VARIABLES, "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match="2 GPUs; start with --nproc-per-node 2"), joined():
        pass
