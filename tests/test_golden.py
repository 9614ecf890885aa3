"""What older code wrote is still read: golden data in `tests/golden`, one folder for each format.

A finished dataset is read, streamed, verified, repaired, extended and overwritten. A run is read. Training it on may be
refused, and so may an unfinished build, with exit code 7 and the remedy.
"""

import json
import tarfile
from pathlib import Path
from typing import Any, Literal

import pytest
from golden.stream_digest import stream_digest
from typer.testing import CliRunner, Result

import streamfeat_cli.commands
from streamfeat.errors import StreamfeatError
from streamfeat.schema import FORMAT_VERSION
from streamfeat.store.manifest import load_manifest

GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(path.name for path in GOLDEN.glob("format-*"))
BUILD = ["--window-len", "32", "--chunk-windows", "4", "--shard-windows", "32", "--workers", "1"]


def call(*words: str | Path) -> Result:
    """What a command comes to; its `exit_code` is the one that a user sees."""
    done = CliRunner().invoke(streamfeat_cli.commands.app, [str(word) for word in words])
    if isinstance(done.exception, StreamfeatError):
        done.exit_code = done.exception.exit_code
    return done


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


def test_an_older_unfinished_build_goes_on_or_says_how(golden: Path) -> None:
    """Where it goes on, the windows are those of a build that was never interrupted."""
    command = ["build-shards", "events.csv", "unfinished", "--packings", "200", *BUILD]
    done = call(*command)
    if done.exit_code == 7:
        assert "--overwrite" in str(done.exception)
        done = call(*command, "--overwrite")
    assert done.exit_code == 0, done.output
    assert call("verify", "unfinished").exit_code == 0


def test_an_older_run_answers(golden: Path) -> None:
    """`inspect`, `recommend` and `evaluate` read the run and its weights."""
    assert call("inspect", "run").exit_code == 0
    done = call("recommend", "run", "--history", "events.csv", "-k", "2", "--json")
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    assert len(answer) > 0
    done = call("evaluate", "run", "--dataset", "users", "--json")
    assert done.exit_code == 0, done.output


def test_an_older_run_goes_on_or_says_how(golden: Path) -> None:
    """`--resume` finds it finished, or is refused with exit code 7 and the remedy."""
    done = call("train", "users", "run", "--resume")
    if done.exit_code == 7:
        assert "--overwrite" in str(done.exception)
    else:
        assert done.exit_code == 0, done.output
