"""The pool of workers. Processes are spawned, die with their parent, and leave signals to it."""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any

from streamfeat.errors import ConfigError, StorageError
from streamfeat.records import Frozen
from streamfeat.store.manifest import Receipt

_PR_SET_PDEATHSIG = 1

Execute = Callable[[Path, Any], Receipt]  # the second is one of the tasks that are run


class WorkerPool:
    """Runs tasks in up to `num_workers` processes; in this one where there is one worker or one task.

    `peak_memory` is the sum over processes of the largest resident size each had, in bytes.
    """

    def __init__(self, execute: Execute, num_workers: int) -> None:
        self._execute = execute
        self._num_workers = num_workers
        self._executor: ProcessPoolExecutor | None = None
        self._peaks: dict[int, int] = {}  # by process

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    @property
    def peak_memory(self) -> int:
        return sum({**self._peaks, os.getpid(): _peak_memory()}.values())

    def run(self, root: Path, tasks: Sequence[Frozen], run_len: int = 1) -> Iterator[Receipt]:
        """Receipts as tasks are committed. A worker takes `run_len` consecutive tasks at once."""
        if self._num_workers == 1 or len(tasks) <= 1:
            for task in tasks:
                yield self._execute(root, task)
            return
        waiting = [tasks[i : i + run_len] for i in range(0, len(tasks), run_len)][::-1]
        pending: set[Future[tuple[int, int, list[Receipt]]]] = set()
        try:
            while waiting or pending:
                # A short queue: what was not started yet is dropped at once when the build is stopped.
                while waiting and len(pending) < self._num_workers + 1:
                    pending.add(self._pool().submit(_run, self._execute, root, waiting.pop()))
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    worker, peak, receipts = future.result()
                    self._peaks[worker] = peak
                    yield from receipts
        except BrokenProcessPool:
            if not self._peaks:
                raise ConfigError(
                    "workers cannot start; in a script of your own, make this call below "
                    "`if __name__ == '__main__':` (workers import the script), or give workers=1"
                ) from None
            raise StorageError(
                "a worker was killed, likely for lack of memory; what it had committed is kept: "
                "run the same command again, with fewer --workers if it happens twice"
            ) from None

    def _pool(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self._num_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=start_worker,
                initargs=(os.getpid(),),
            )
        return self._executor


def start_worker(parent: int) -> None:
    """First call of a spawned process: it dies with its parent, the process `parent`, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _run(execute: Execute, root: Path, tasks: Sequence[Frozen]) -> tuple[int, int, list[Receipt]]:
    receipts = [execute(root, task) for task in tasks]
    return os.getpid(), _peak_memory(), receipts


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
