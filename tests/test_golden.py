"""What older code wrote is still read: golden data in `tests/golden`, one folder for each format.

A finished dataset is read, streamed, trained on, exported, verified, repaired, extended and overwritten. A run is
read and goes on. An unfinished build of format 1 is refused with exit code 7 and the remedy, and so is all of a newer
format.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Literal

import pytest
from golden.stream_digest import stream_digest
from typer.testing import CliRunner, Result

import streamfeat
import streamfeat_cli.commands
from streamfeat.errors import StreamfeatError
from streamfeat.schema import FORMAT_VERSION
from streamfeat.store.files import LOCK
from streamfeat.store.manifest import load_manifest
from train.runs.metrics import read_metrics
from train.runs.record import read_record

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(path.name for path in GOLDEN.glob("format-*"))
BUILD = ["--window-len", "32", "--chunk-windows", "4", "--shard-windows", "32", "--workers", "1"]
GO_ON = ["build-shards", "events.csv", "unfinished", "--packings", "200", *BUILD]


def call(*words: str | Path) -> Result:
    """What a command comes to; its `exit_code` is the one that a user sees."""
    done = CliRunner().invoke(streamfeat_cli.commands.app, [str(word) for word in words])
    if isinstance(done.exception, StreamfeatError):
        done.exit_code = done.exception.exit_code
    return done


def call_process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """What the command comes to in a process of its own, as users type it."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, words)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "500"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def contents(folder: str) -> dict[Path, bytes]:
    """What every file below a folder holds, but for the lock that was tried."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != LOCK}


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A format's archives, unpacked in the present folder: `users`, `last-two`, `run`, `unfinished`, `events.csv`."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for archive in sorted((GOLDEN / request.param).glob("*.tar.xz")):
        with tarfile.open(archive) as file:
            file.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return GOLDEN / request.param


def test_golden_data_of_the_first_format_is_there() -> None:
    """Without archives every other test here would pass."""
    assert "format-1" in FORMATS
    assert {path.name for path in (GOLDEN / "format-1").iterdir()} == {
        "users.tar.xz", "last-two.tar.xz", "run.tar.xz", "unfinished.tar.xz", "expected.json"
    }  # fmt: skip
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*")) < 1_000_000


@pytest.mark.parametrize("name", ["users", "last-two"])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_an_older_dataset_streams_what_it_always_did(
    golden: Path, name: str, objective: Literal["causal", "masked"]
) -> None:
    """Every array of an epoch, to the bit."""
    expected = json.loads((golden / "expected.json").read_text())
    assert stream_digest(Path(name), objective) == expected[f"{name} {objective}"]


@pytest.mark.parametrize("name", ["users", "last-two"])
def test_an_older_dataset_is_verified_and_repaired(golden: Path, name: str) -> None:
    """A lost shard of windows comes back with the bytes that the manifest lists."""
    assert call("verify", name).exit_code == 0
    shard = Path(name, "windows.zarr/training/0/item/c/1/0")
    content = shard.read_bytes()
    shard.unlink()
    assert call("verify", name).exit_code == 4
    assert call("verify", name, "--repair").exit_code == 0
    assert shard.read_bytes() == content


def test_an_older_dataset_is_inspected(golden: Path) -> None:
    done = call("inspect", "users", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["users"] == load_manifest("users").num_users == 40


def test_an_older_dataset_is_extended(golden: Path) -> None:
    """The same command with more packings adds them, and changes nothing that was there."""
    before = {path: path.read_bytes() for path in Path("users").rglob("c/*/*")}
    done = call("build-shards", "events.csv", "users", "--split", "users:0.1", "--packings", "3", *BUILD)
    assert done.exit_code == 0, done.output
    assert load_manifest("users").splits["training"].packings == 3
    written = json.loads(Path("users/dataset.json").read_text("utf-8"))
    assert written["format_version"] == FORMAT_VERSION, "what is written now is in today's format"
    for receipt in written["receipts"]:
        assert json.loads(Path(f"users/receipts/{receipt['task']}.json").read_text("utf-8")) == receipt
    assert all(path.read_bytes() == content for path, content in before.items())
    assert call("verify", "users").exit_code == 0


def test_an_older_dataset_is_overwritten(golden: Path) -> None:
    """Another configuration is refused without --overwrite, and replaces the dataset with it."""
    command = ["build-shards", "events.csv", "users", "--split", "users:0.3", *BUILD]
    assert call(*command).exit_code == 2
    done = call(*command, "--overwrite")
    assert done.exit_code == 0, done.output
    assert load_manifest("users").config.split == "users:0.3"


@pytest.mark.parametrize("file", ["users/dataset.json", "run/config.json", "unfinished/tmp/plan.json"])
def test_a_newer_format_is_exit_code_7_and_nothing_changes(golden: Path, file: str) -> None:
    """By the command as users type it: a dataset, a run and an unfinished build that a later version wrote."""
    values = json.loads(Path(file).read_text("utf-8"))
    Path(file).write_text(json.dumps(values | {"format_version": 99}), "utf-8")
    before = contents(Path(file).parts[0])
    words = {"users": ["verify", "users"], "run": ["inspect", "run"], "unfinished": GO_ON}[Path(file).parts[0]]
    done = call_process(*words)
    assert done.returncode == 7, done.stderr
    assert "written in format 99" in done.stderr
    assert "upgrade streamfeat" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(Path(file).parts[0]) == before


def test_an_unfinished_build_of_format_1_is_exit_code_7_and_overwrite_the_remedy(golden: Path) -> None:
    """Its receipts say less than those of today; refused, it stays as it is."""
    before = contents("unfinished")
    done = call_process(*GO_ON)
    assert done.returncode == 7, done.stderr
    assert "an unfinished build of format 1" in done.stderr
    assert "--overwrite" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents("unfinished") == before
    again = call(*GO_ON, "--overwrite")
    assert again.exit_code == 0, again.output
    assert call("verify", "unfinished").exit_code == 0


@pytest.mark.parametrize("name", ["users", "last-two"])
def test_an_older_dataset_is_opened(golden: Path, name: str) -> None:
    """From Python: its items, its users and a history."""
    data = streamfeat.open(name)
    assert len(data.items) == data.manifest.num_items
    assert len(data.users) == data.manifest.num_users
    assert len(data.history(data.users.to_dict()["raw_id"][0])) > 0


@pytest.mark.parametrize("live", [[], ["--live", "--live-workers", "1"]])
def test_an_older_dataset_is_trained_on(golden: Path, live: list[str]) -> None:
    """On what is stored, and on packings that producers make of its histories."""
    tiny = ["--layers", "1", "--width", "8", "--heads", "1", "--batch-tokens", "512", "--steps", "2"]
    done = call("train", "users", "new", *tiny, *live)
    assert done.exit_code == 0, done.output
    assert [line["step"] for line in read_metrics("new") if line["kind"] == "train"] == [1, 2]


def test_an_older_dataset_is_exported(golden: Path) -> None:
    """As plain arrays."""
    done = call("export-features", "users", "features", "--objective", "causal", "--workers", "1")
    assert done.exit_code == 0, done.output


def test_an_older_run_answers(golden: Path) -> None:
    """`inspect`, `recommend` and `evaluate` read the run and its weights."""
    assert call("inspect", "run").exit_code == 0
    done = call("recommend", "run", "--history", "events.csv", "-k", "2", "--json")
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    assert len(answer) > 0
    done = call("evaluate", "run", "--dataset", "users", "--json")
    assert done.exit_code == 0, done.output


def add_an_epoch(run: Path) -> None:
    """Make a finished run one that was stopped after its second epoch of three."""
    checkpoint = run / "checkpoints/step-00000010"
    record = json.loads((run / "config.json").read_text("utf-8"))
    record["train"]["epochs"] = 3
    (run / "config.json").write_text(json.dumps(record), "utf-8")
    state = json.loads((checkpoint / "state.json").read_text("utf-8"))
    state["config"]["epochs"] = 3
    content = json.dumps(state).encode()
    (checkpoint / "state.json").write_bytes(content)
    manifest = json.loads((checkpoint / "manifest.json").read_text("utf-8"))
    for file in manifest["files"]:
        if file["path"] == "state.json":
            file |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def test_an_older_run_that_is_not_finished_is_refused_with_the_remedy(golden: Path) -> None:
    """A finished one says so; one that is not would continue by other rules than it began with."""
    before = read_metrics("run")
    assert call("train", "users", "run", "--resume").exit_code == 0
    assert read_metrics("run") == before
    add_an_epoch(Path("run"))
    done = call("train", "users", "run", "--resume")
    assert done.exit_code == 7
    assert "--overwrite" in str(done.exception)
    assert read_metrics("run") == before


def test_an_older_run_without_its_checkpoints_starts_from_step_0(golden: Path) -> None:
    """Its options are the saved ones; the steps that are lost are made again."""
    shutil.rmtree("run/checkpoints")
    done = call("train", "users", "run", "--resume")
    assert done.exit_code == 0, done.output
    assert Path("run/checkpoints/step-00000010/manifest.json").exists()
    assert (read_record("run").train.epochs, read_record("run").train.model.width) == (2, 16)


def test_an_older_run_is_overwritten(golden: Path) -> None:
    """It has no marker, and is known by the keys of its config.json."""
    assert not Path("run/.streamfeat").exists()
    assert call("train", "users", "run").exit_code == 2
    done = call("train", "users", "run", "--overwrite", "--width", "8", "--heads", "1", "--steps", "1")
    assert done.exit_code == 0, done.output
    assert read_record("run").train.model.width == 8
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-00000001"]
