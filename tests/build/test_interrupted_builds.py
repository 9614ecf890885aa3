"""A build that is really killed is finished by the next run of the same command, byte for byte."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from invented_events import invent_events, write_csv

from streamfeat import build_shards

HOUSE = Path(__file__).parents[2]
OPTIONS = {"window_len": 16, "chunk_windows": 1, "shard_windows": 4, "packings": 2}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("num_receipts", "workers", "split"),
    [
        (9, 2, "users:0.01"),
        *(
            pytest.param(*moment, marks=pytest.mark.slow)
            for moment in ((1, 1, "users:0.01"), (3, 1, "users:0.01"), (12, 1, "users:0.01"), (8, 1, "last:2"))
        ),
    ],
)
def test_a_killed_build_is_finished_by_the_next_run(
    tmp_path: Path, num_receipts: int, workers: int, split: str
) -> None:
    """SIGKILL of the parent once so many receipts are there: no child lives on, no byte differs."""
    events = write_csv(tmp_path / "e.csv", invent_events(seed=4, num_users=120, media={"a": 30}))
    options = {**OPTIONS, "split": split}
    build_shards([str(events)], tmp_path / "whole", **options)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    out = tmp_path / "out"
    command = [sys.executable, HOUSE / "cli.py", "build-shards", events, out, f"--workers={workers}", *words]
    build = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list((out / "receipts").glob("*.json"))) < num_receipts and time.monotonic() < deadline:
        if build.poll() is not None:
            break
    build.kill()
    build.wait()
    if (out / "dataset.json").exists():
        pytest.skip("the build finished before it could be killed")
    wait_until_gone(build.pid)
    build_shards([str(events)], out, **options)
    assert digests(out) == digests(tmp_path / "whole")


def wait_until_gone(session: int) -> None:
    """Workers die with their parent: nothing of its session is left after five seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(session, signal.SIGKILL)
    pytest.fail("a worker outlived its parent by five seconds")
