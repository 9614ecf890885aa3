"""Workers that really die, stop or hang are noticed within seconds and named; their task is done again, at
most twice."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faulty_tasks import Fault, FaultyTask, execute

from streamfeat.errors import DataError, StorageError
from streamfeat.progress import Note
from streamfeat.store.receipts import TablesReceipt
from streamfeat.workers import pool as pool_module
from streamfeat.workers.pool import WorkerPool
from streamfeat.workers.process import peak_memory

HOUSE = Path(__file__).parents[2]

# In place of 15 and 60 s. A beat may be a second old, and the pool's clock counts at most two of a longer pause.
LIMIT_S = 4.0


def tasks(fault: Fault, times: int = 1000, num: int = 5) -> list[FaultyTask]:
    """Task 2 has the fault."""
    return [FaultyTask(number=n, fault=fault if n == 2 else "", times=times) for n in range(num)]


def drain(root: Path, faulty: list[FaultyTask], run_len: int = 2) -> tuple[list[TablesReceipt], list[str]]:
    """The receipts and notes of a pool of two workers. No worker is left at the end."""
    receipts: list[TablesReceipt] = []
    notes: list[str] = []
    with WorkerPool(execute, 2) as pool:
        for step in pool.run(root, faulty, run_len):
            if isinstance(step, Note):
                notes.append(step.text)
            else:
                receipts.append(step)
    assert_no_worker_left(root)
    return receipts, notes


def assert_no_worker_left(root: Path) -> None:
    pids = {int(file.suffix[1:]) for file in root.iterdir()}
    assert pids
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("killed", r"was killed by signal 9 \(SIGKILL\), likely for lack of memory"),
        ("exits", r"ended with code 0"),
        ("memory", r"ran out of memory"),
    ],
)
def test_a_worker_that_dies_is_named_and_its_task_done_again(tmp_path: Path, fault: Fault, said: str) -> None:
    """The note has the worker, process, how it ended, its peak memory and its task. Every task is committed once."""
    started = time.monotonic()
    receipts, notes = drain(tmp_path, tasks(fault, times=1))
    assert sorted(receipt.task for receipt in receipts) == [f"task-{n}" for n in range(5)]
    (first,) = (file.suffix[1:] for file in tmp_path.glob("task-2.0.*"))
    assert len(notes) == 1
    who = rf"worker \d \(process {first}\) {said}, peak memory \d{{2,3}} MB"
    assert re.fullmatch(rf"{who}, at task task-2; another one does it again \(try 2\)", notes[0])
    assert time.monotonic() - started < 120


@pytest.mark.parametrize("fault", ["killed", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_task_that_ends_its_worker_three_times_stops_the_build(tmp_path: Path, fault: Fault) -> None:
    """The error has the task, all three ends and the remedy; exit code 6. Results of other tasks were yielded
    before."""
    with pytest.raises(StorageError, match=r"task task-2 was given up after 3 tries:(\n  worker .*){3}") as caught:
        drain(tmp_path, tasks(fault))
    assert "fewer --workers or more memory" in str(caught.value)
    assert caught.value.exit_code == 6
    assert len(list(tmp_path.glob("task-2.*"))) == 3
    assert_no_worker_left(tmp_path)


@pytest.mark.parametrize(
    ("fault", "limit", "said"),
    [("stopped", "SILENT_S", "no sign of life for"), ("sleeps", "STALLED_S", "no progress and no use of the CPU for")],
)
def test_a_worker_that_hangs_is_noticed_killed_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, limit: str, said: str
) -> None:
    """A stopped process sends nothing. One that waits without end sends beats but uses no CPU."""
    monkeypatch.setattr(pool_module, limit, LIMIT_S)
    receipts, notes = drain(tmp_path, tasks(fault, times=1))
    assert len(receipts) == 5
    assert len(notes) == 1
    assert said in notes[0]
    assert "at task task-2" in notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["computes", "short sleeps"])
def test_a_worker_that_works_is_never_taken_for_a_hung_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """One task that uses the CPU for longer than the limit; or several tasks that use no CPU."""
    monkeypatch.setattr(pool_module, "STALLED_S", LIMIT_S)
    faulty = [FaultyTask(number=n, fault=fault) for n in range(2 if fault == "computes" else 4)]
    receipts, notes = drain(tmp_path, faulty)
    assert notes == []
    assert len(receipts) == len(faulty)


@pytest.mark.slow
def test_time_in_which_nobody_asks_is_not_held_against_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller, or the whole process group (Ctrl-Z), may pause for longer than any limit."""
    for limit in ("SILENT_S", "STALLED_S"):
        monkeypatch.setattr(pool_module, limit, LIMIT_S)
    with WorkerPool(execute, 2) as pool:
        steps = pool.run(tmp_path, [FaultyTask(number=n, fault="short sleeps") for n in range(4)])
        taken = [next(steps)]
        time.sleep(6)
        taken += list(steps)
    assert [type(step) for step in taken] == [TablesReceipt] * 4


def test_what_a_task_raises_is_raised_as_it_is(tmp_path: Path) -> None:
    """An error that the user can fix keeps its class and text. A bug also shows its place in the worker."""
    with pytest.raises(DataError, match=r"^a bad row; mend it$"):
        drain(tmp_path, tasks("data"))
    with pytest.raises(ZeroDivisionError, match="of the task") as caught:
        drain(tmp_path, tasks("bug"))
    assert "faulty_tasks.py" in "".join(caught.value.__notes__)
    assert_no_worker_left(tmp_path)


def test_one_worker_and_one_task_need_no_process(tmp_path: Path) -> None:
    """No process is started. Lack of memory is an error with a remedy, too."""
    with WorkerPool(execute, 1) as alone, WorkerPool(execute, 2) as pool:
        assert [step.rows for step in alone.run(tmp_path, tasks(""))] == [os.getpid()] * 5
        assert [step.rows for step in pool.run(tmp_path, tasks("", num=1))] == [os.getpid()]
        with pytest.raises(StorageError, match="out of memory"):
            list(pool.run(tmp_path, [FaultyTask(number=9, fault="memory")]))


def test_workers_of_one_pool_serve_all_its_runs(tmp_path: Path) -> None:
    """Processes are started only once, so later stages of a build do not wait for them again."""
    with WorkerPool(execute, 2) as pool:
        pids = [{step.rows for step in pool.run(tmp_path, tasks("", num=8), 1)} for _ in range(2)]
        assert pool.peak_memory > 10**7
    assert pids[0] | pids[1] == pids[0]
    assert os.getpid() not in pids[0]


def test_a_process_has_not_the_peak_memory_of_the_one_that_started_it() -> None:
    """Otherwise the memory of a large notebook would be counted in every worker of its build."""
    script = "from streamfeat.workers.process import peak_memory; print(peak_memory())"
    held = np.ones(1 << 29, dtype=np.uint8)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 10**7 < int(done.stdout) < held.nbytes < peak_memory()


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    """Workers import the calling script; without the guard they would start the build again."""
    lines = "user,item,timestamp\n" + "".join(f"u{n % 9},i{n},{1_400_000_000 + n}\n" for n in range(300))
    (tmp_path / "e.csv").write_text(lines)
    script = tmp_path / "script.py"
    script.write_text(
        "import streamfeat\n"
        f"streamfeat.build({str(tmp_path / 'e.csv')!r}, {str(tmp_path / 'out')!r}, workers=2, window_len=16,\n"
        "                 chunk_windows=1, shard_windows=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ConfigError: workers cannot start" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("limit", [12, 16, 24])
def test_too_few_file_handles_for_workers_is_an_error_with_the_remedy(tmp_path: Path, limit: int) -> None:
    """For any operation that first lacks the handle."""
    lines = "user,item,timestamp\n" + "".join(f"u{n % 9},i{n},{1_400_000_000 + n}\n" for n in range(300))
    (tmp_path / "e.csv").write_text(lines)
    words = [str(tmp_path / "e.csv"), str(tmp_path / "out"), "--workers", "2", "--window-len", "16",
             "--chunk-windows", "1", "--shard-windows", "2"]  # fmt: skip
    command = [
        "bash",
        "-c",
        f'ulimit -n {limit}; exec "$0" "$@"',
        sys.executable,
        str(HOUSE / "cli.py"),
        "build-shards",
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 6), done.stderr
    assert done.returncode == 0 or "raise `ulimit -n`" in done.stderr
