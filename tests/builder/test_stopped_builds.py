"""Builds in real processes whose workers are killed or that get Ctrl-C: they name the worker, leave no process, and
give the same bytes."""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from faulty_tasks import FaultyTask, execute
from processes import assert_session_ends, children_of, command_line
from whole_builds import build_command, digests, undisturbed

from streamfeat import BuildConfig
from streamfeat.builder.coordinator import Build, build_shards
from streamfeat.builder.plan import Plan, plan_facts
from streamfeat.progress import Note
from streamfeat.store.receipts import TablesReceipt
from streamfeat.workers.pool import WorkerPool


def start(events: str, out: Path, options: dict[str, Any]) -> subprocess.Popen[str]:
    command = build_command(events, out, options, workers=2)
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )  # fmt: skip


def workers_of(build: subprocess.Popen[str], num: int) -> list[int]:
    """The ids of its worker processes, when there are so many (or it has ended)."""
    while build.poll() is None:
        found = [pid for pid in children_of(build.pid) if b"spawn_main" in command_line(pid)]
        if len(found) >= num:
            return found
        time.sleep(0.002)
    pytest.fail("the build ended before it had workers")


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_receipts", [0, pytest.param(4, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
def test_a_build_outlives_its_killed_worker(tmp_path: Path, num_receipts: int) -> None:
    """`kill -9` while it starts or later: the build names it, continues and gives the same bytes; exit code 0."""
    events, options, whole = undisturbed(tmp_path)
    out = tmp_path / "out"
    build = start(events, out, options)
    victim = workers_of(build, 2)[0]
    while build.poll() is None and len(list((out / "receipts").glob("*.json"))) < num_receipts:
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # late, its work is done
        os.kill(victim, signal.SIGKILL)
    _, stderr = build.communicate(timeout=120)
    assert build.returncode == 0, stderr
    named = rf"warning: worker \d \(process {victim}\) was killed by signal 9 \(SIGKILL\)"
    assert re.search(named, stderr) or num_receipts, stderr  # at its end a build needs no worker any more
    assert "Traceback" not in stderr
    assert digests(out) == whole
    assert_session_ends(build.pid)


@pytest.mark.parametrize(
    ("num_workers", "num_receipts", "delay"),
    [(1, 0, 0.0), *(pytest.param(2, *when, marks=pytest.mark.slow)
                    for when in [(0, 0.0), (0, 0.05), (0, 0.2), (0, 0.5), (1, 0.0), (4, 0.0), (6, 0.0)])],
)  # fmt: skip
def test_ctrl_c_is_one_line_and_leaves_a_resumable_state(
    tmp_path: Path, num_workers: int, num_receipts: int, delay: float
) -> None:
    """To the whole process group, as from a terminal: exit code 130, no traceback of any process, no process left."""
    events, options, whole = undisturbed(tmp_path)
    out = tmp_path / "out"
    build = start(events, out, options)
    workers_of(build, num_workers)
    while build.poll() is None and len(list((out / "receipts").glob("*.json"))) < num_receipts:
        time.sleep(0.002)
    time.sleep(delay)
    assert not (out / "dataset.json").exists(), "the build was quicker: nothing was tried"
    os.killpg(build.pid, signal.SIGINT)
    _, stderr = build.communicate(timeout=120)
    if build.returncode == 0:  # its last moment
        assert digests(out) == whole
        return
    assert build.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "KeyboardInterrupt" not in stderr
    assert "leaked" not in stderr
    assert "stopped; what is committed is kept; run the same command to continue" in stderr
    assert_session_ends(build.pid)
    build_shards([events], out, **options)
    assert digests(out) == whole


def test_what_a_worker_was_writing_when_it_was_killed_is_gone_before_the_stage_ends(tmp_path: Path) -> None:
    """The build continues, so no later start removes the partial file; it would stay in the dataset."""
    config = BuildConfig()
    plan = Plan(tmp_path, config, (), (), plan_facts(config, ()), "")
    tasks = [FaultyTask(number=n, fault="killed in a write" if n == 1 else "", times=1) for n in range(3)]
    half_files = []
    with WorkerPool(execute, 2) as pool:
        for step in Build(plan, pool).stage(TablesReceipt, "windows", "windows", tasks, [1] * 3):
            if isinstance(step, Note):
                half_files = list((tmp_path / "windows.zarr").iterdir())
    assert len(half_files) == 1
    assert list((tmp_path / "windows.zarr").iterdir()) == []
