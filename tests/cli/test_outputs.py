"""The end of a command: when its output cannot be written, and when a signal comes while or after it writes its
output."""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from streamfeat.builder.coordinator import build_shards
from streamfeat.progress_bars import PlainConsole
from streamfeat_cli.console import lead_nowhere

HOUSE = Path(__file__).parents[2]


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command in its own process, because the interpreter's last flush is part of the test."""
    command = [sys.executable, HOUSE / "cli.py", *words]
    return subprocess.run(command, text=True, check=False, timeout=120, **options)


ASKED = [["inspect"], ["inspect", "--json"], ["train", "--help"], ["--help"]]


def asked(words: list[str], dataset: Path) -> list[str | Path]:
    return [*words, dataset] if words[0] == "inspect" else [*words]


@pytest.mark.parametrize("words", ASKED)
def test_a_full_disk_under_the_results_is_one_line_and_exit_code_6(tiny_dataset: Path, words: list[str]) -> None:
    """For a table, JSON and help. A command whose result was not written has failed."""
    with Path("/dev/full").open("w") as full:
        done = run(*asked(words, tiny_dataset), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
    assert "error: standard output: No space left on device; the disk is full: make space" in done.stderr


@contextlib.contextmanager
def closed_pipe() -> Iterator[int]:
    """A pipe to write to whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    """A file to write to that has no space left."""
    with Path("/dev/full").open("w") as full:
        yield full.fileno()


@pytest.mark.parametrize("words", ASKED)
def test_a_reader_that_is_gone_ends_a_command_quietly(tiny_dataset: Path, words: list[str]) -> None:
    """With the exit code of a process that SIGPIPE ends, as `| head` expects."""
    with closed_pipe() as gone:
        done = run(*asked(words, tiny_dataset), stdout=gone, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("refusing", [full_disk, closed_pipe])
def test_standard_error_that_cannot_be_written_ends_no_work(
    tiny_dataset: Path, refusing: Callable[[], AbstractContextManager[int]], tmp_path: Path
) -> None:
    """Progress and notes are lost, but not the result and the exit code."""
    events, out = tiny_dataset.parent / "events.csv", tmp_path / "data"
    calls: list[tuple[int, list[str | Path]]] = [
        (0, ["verify", tiny_dataset]),
        (0, ["build-shards", events, out, "--window-len", "16", "--json"]),  # shows progress and notes
        (2, ["inspect", tiny_dataset / "nothing"]),
        (2, ["inspect", tiny_dataset, "--no-such-option"]),
    ]
    for code, words in calls:
        with refusing() as stderr:
            done = run(*words, stdout=subprocess.PIPE, stderr=stderr)
        assert (done.returncode, bool(done.stdout)) == (code, code == 0), words


def test_progress_that_a_terminal_no_longer_takes_ends_no_work() -> None:
    """In a terminal a separate thread draws the bars repeatedly."""
    with full_disk() as full, os.fdopen(os.dup(full), "w", 1) as stderr:
        console = PlainConsole(file=stderr, stderr=True, force_terminal=True)
        with Progress(console=console, refresh_per_second=100) as bars:
            for _ in bars.track(range(3)):
                time.sleep(0.02)
        assert console.quiet
        lead_nowhere(stderr.fileno())


def test_an_error_of_ours_is_not_taken_for_one_of_the_output(tmp_path: Path) -> None:
    """It keeps its traceback, with exit code 1."""
    code = (
        "import streamfeat_cli, streamfeat_cli.commands as c; app = c.typer.Typer(pretty_exceptions_enable=False)\n"
        "@app.command()\n"
        "def fails(): raise OSError(28, 'not of the output')\n"
        "import sys; sys.argv = ['cli.py']; c.app = app; streamfeat_cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=HOUSE)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "OSError: [Errno 28] not of the output" in done.stderr


def test_closed_handles_are_no_files_of_ours(tmp_path: Path) -> None:
    """Messages of libraries on standard error must not go into a file that got its number."""
    code = (
        "import os, sys; os.close(0); os.close(1); os.close(2); sys.stdin = sys.stdout = sys.stderr = None\n"
        f"sys.path.insert(0, {str(HOUSE)!r})\n"
        "import streamfeat_cli; from streamfeat_cli.console import outputs\n"
        f"outputs().__enter__(); file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "print('lost'); print('lost', file=sys.stderr); file.write(str(file.fileno() > 2)); file.close()\n"
        "sys.argv = ['cli.py', '--help']; streamfeat_cli.main()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
    assert (tmp_path / "file").read_text() == "True"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_any_command_in_one_line(number: int, code: int) -> None:
    """Here while it waits for a reader that reads no more, such as a pager."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, HOUSE / "cli.py", "train", "--help"]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    while select.select([], [writing], [], 0)[1]:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.communicate(timeout=60) == (None, "stopped\n")
    assert process.returncode == code
    os.close(reading)
    os.close(writing)


def test_a_signal_after_a_command_is_done_is_no_failure(tiny_dataset: Path) -> None:
    """At its end Python removes its signal handlers: a late Ctrl-C would kill a process that has done its work."""
    code = (
        "import builtins, os, runpy, sys, time\n"
        "class Last:\n"
        "    def __del__(self, write=os.write, sleep=time.sleep): write(1, b'ending\\n'); sleep(2)\n"
        "builtins.last = Last()\n"
        f"sys.argv = ['cli.py', 'inspect', {str(tiny_dataset)!r}]\n"
        f"runpy.run_path({str(HOUSE / 'cli.py')!r}, run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOUSE
    )  # fmt: skip
    assert process.stdout is not None
    while "ending" not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_lacks_a_character_loses_no_result(tmp_path: Path, encoding: str) -> None:
    """Texts show an escape; JSON stays equivalent."""
    lines = [f"ü{n % 3},日{n % 5},{1_300_000_000 + n}" for n in range(30)]
    (tmp_path / "e.csv").write_text("user,item,timestamp\n" + "\n".join(lines), "utf-8")
    build_shards([str(tmp_path / "e.csv")], tmp_path / "d\u65e5", window_len=16)
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": encoding,
                               "env": {**os.environ, "PYTHONIOENCODING": encoding}}  # fmt: skip
    plain = run("inspect", tmp_path / "d\u65e5", "--window", "0", **options)
    json_ = run("inspect", tmp_path / "d\u65e5", "--json", **options)
    assert (plain.returncode, plain.stderr) == (json_.returncode, json_.stderr) == (0, "")
    assert "\\u65e5" in plain.stdout
    assert json.loads(json_.stdout)["dataset"] == str(tmp_path / "d\u65e5")
