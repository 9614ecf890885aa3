"""build-shards, inspect, verify and invent as a user types them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edited_manifests import edit_manifest
from invented_events import write_csv
from reference_build import Event
from typer.testing import CliRunner, Result

import streamfeat_cli.commands
from streamfeat.errors import StreamfeatError

HOUSE = Path(__file__).parents[2]


def run(*words: str | Path) -> Result:
    """A command in this process; errors that a user can fix arrive as exceptions of the result."""
    return CliRunner().invoke(streamfeat_cli.commands.app, [str(word) for word in words])


@pytest.fixture
def events(tmp_path: Path, tiny_events: list[Event]) -> Path:
    return write_csv(tmp_path / "events.csv", tiny_events)


def test_json_is_one_object_on_stdout(tmp_path: Path, events: Path) -> None:
    """Progress and notes go to stderr, in a real process."""
    command = [sys.executable, HOUSE / "cli.py", "build-shards", events, tmp_path / "out", "--workers", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["result"] == "built"
    assert summary["users"] == 50
    assert set(summary["items"]) == {"anime", "manga"}
    assert 0 < summary["fill_rate"] <= 1
    assert summary["peak_memory_bytes"] > 10**7
    assert "reading" in done.stderr
    assert "recognised" in done.stderr


def test_a_second_build_is_up_to_date(tmp_path: Path, events: Path) -> None:
    """And exits 0."""
    words = ("build-shards", events, tmp_path / "out", "--workers", "1")
    assert run(*words).exit_code == 0
    again = run(*words)
    assert again.exit_code == 0
    assert "up to date" in again.stdout


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--split", "last:3"], 2, r"split must be last:2, or users:F"),
        (["--split", "users:1.5"], 2, r"users:F with 0 < F < 1"),
        (["--media", "position"], 2, r"name of a token field"),
        (["--media", "films"], 2, r"'films': no event has this medium; the events have anime, manga"),
        (["--columns", "user"], 2, r"role=column"),
        (["--columns", "user=nobody"], 2, r"nobody"),
        (["--chunk-windows", "64", "--shard-windows", "100"], 2, r"multiple of chunk_windows"),
        (["--window-len", "1"], 2, r"--window-len"),
        (["--compression", "rar"], 2, r"compression"),
        (["--format", "mp3"], 2, r"mp3"),
        (["--min-user-events", "100000"], 3, r"0 users left"),
    ],
)
def test_a_bad_option_is_refused_with_the_remedy(
    tmp_path: Path, events: Path, options: list[str], code: int, message: str
) -> None:
    """The exit code says whose fault it is; nothing that looks like a dataset is left."""
    refused = run("build-shards", events, tmp_path / "out", "--workers", "1", *options).exception
    assert isinstance(refused, StreamfeatError)
    assert refused.exit_code == code
    assert re.search(message, str(refused)), str(refused)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_an_error_is_a_message_and_an_exit_code_without_traceback(tmp_path: Path, events: Path) -> None:
    """The one error edge, in a real process."""
    command = [sys.executable, HOUSE / "cli.py", "build-shards", events, tmp_path / "out", "--window-len", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--window-len" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_shows_a_window_with_raw_ids(tiny_dataset: Path) -> None:
    """A token a line: what is masked, what is asked."""
    masked = run("inspect", tiny_dataset, "--window", "1", "--objective", "masked")
    assert masked.exit_code == 0
    lines = masked.stdout.splitlines()
    assert len(lines) == 2 + 32
    assert any("user" in line for line in lines[2:])
    shown = json.loads(run("inspect", tiny_dataset, "--window", "1", "--objective", "masked", "--json").stdout)
    asked = [token for token in shown["tokens"] if token["target item"]]
    assert asked
    assert all(token["item"] == "MASK" and token["status"] == "MASK" for token in asked)
    whole = run("inspect", tiny_dataset)
    assert "training windows" in whole.stdout


def test_inspect_takes_an_absent_count_for_0(tmp_path: Path, tiny_dataset: Path) -> None:
    """As the page of the format says: another writer may leave counts out."""
    shutil.copytree(tiny_dataset, tmp_path / "data")
    edit_manifest(tmp_path / "data", lambda values: values["cleaning"].clear())
    done = run("inspect", tmp_path / "data", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows_read"] == 0


def test_inspect_refuses_a_name_that_the_system_does_not_take() -> None:
    """With what is wrong, not with a traceback."""
    error = run("inspect", "n" * 300).exception
    assert isinstance(error, StreamfeatError)
    assert error.exit_code == 6
    assert "File name too long" in str(error)


def test_verify_names_the_damaged_chunk_and_exits_4(tmp_path: Path, events: Path) -> None:
    """A flipped bit in a shard of the training windows."""
    out = tmp_path / "out"
    assert run("build-shards", events, out, "--workers", "1").exit_code == 0
    assert run("verify", out).exit_code == 0
    shard = out / "windows.zarr/training/0/item/c/0/0"
    data = bytearray(shard.read_bytes())
    data[10] ^= 4
    shard.write_bytes(data)
    found = run("verify", out)
    assert found.exit_code == 4
    assert "windows.zarr/training/0/item" in found.stdout
    assert "chunk 0" in found.stdout


def test_invented_histories_build(tmp_path: Path) -> None:
    """What `make demo` starts from."""
    assert run("invent", tmp_path / "e.csv", "--users", "60", "--events", "2000", "--seed", "3").exit_code == 0
    built = run("build-shards", tmp_path / "e.csv", tmp_path / "out", "--workers", "1", "--window-len", "64")
    assert built.exit_code == 0
    assert "anime" in built.stdout
