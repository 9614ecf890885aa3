"""The pool of workers. If a worker dies or hangs, a note names it and another worker does its task."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from streamfeat.errors import ConfigError, StorageError, StreamfeatError, refusal
from streamfeat.progress import Note
from streamfeat.records import Frozen
from streamfeat.workers.child import END_S, Child, Supervisor
from streamfeat.workers.process import Beat, Done, Execute, Failed, Order, peak_memory, work

MOST_TRIES = 3  # a task is given up after it has ended so many workers
START_S = 120.0  # a process has so long to get ready; it imports all that the user's script imports
SILENT_S = 15.0  # a process without a beat for so long is stopped or hangs
STALLED_S = 60.0  # a process without progress and with less CPU time than STALLED_CPU_S for so long hangs
STALLED_CPU_S = 0.1  # more than sixty beats use
_POLL_S = 1.0


@dataclass
class _Worker:
    number: int  # from 1, used in messages
    child: Child
    tasks: list[Frozen] = field(default_factory=list)  # given to it; it runs the first one
    is_ready: bool = False
    reason: str = ""  # why it must end, if the pool knows
    peak_memory: int = 0
    cpu_s: float = 0.0  # CPU time at `moved`
    heard: float = 0.0  # time of its last message, on the pool's clock
    moved: float = 0.0  # time of its last progress or use of the CPU


class WorkerPool:
    """Runs tasks in up to `num_workers` processes. With one worker or one task it uses this process.

    `peak_memory` is the sum over processes of each one's largest resident size, in bytes.
    """

    def __init__(self, execute: Execute, num_workers: int) -> None:
        self._execute = execute
        self._num_workers = num_workers
        self._supervisor = Supervisor()
        self._workers: list[_Worker] = []
        self._started = 0
        self._ever_ready = False
        self._peaks: dict[int, int] = {}  # by process
        self._failures: dict[str, list[str]] = {}  # by task: how its workers ended
        self._clock = _Clock()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.end()
        self._workers = []

    @property
    def peak_memory(self) -> int:
        return sum({**self._peaks, os.getpid(): peak_memory()}.values())

    def run(self, root: Path, tasks: Sequence[Frozen], run_len: int = 1) -> Iterator[Any | Note]:
        """Yields the result of each task when it is done. A worker takes `run_len` consecutive tasks at a time.

        A `Note` reports a lost worker. Errors of a task are raised here. Raises StorageError if the same task has ended
        MOST_TRIES workers, ConfigError if no worker can start.
        """
        if self._num_workers == 1 or len(tasks) <= 1:
            for task in tasks:
                yield self._run_here(root, task)
            return
        waiting = [list(tasks[i : i + run_len]) for i in range(0, len(tasks), run_len)][::-1]
        while waiting or any(worker.tasks for worker in self._workers):
            self._hand_out(root, waiting)
            wait([worker.child.pipe for worker in self._workers], _POLL_S)
            self._clock.tick()
            news: list[Any | Note] = []
            for worker in list(self._workers):
                is_gone = self._listen(worker, news)
                self._judge(worker)
                if is_gone or worker.reason:
                    news.append(self._replace(worker, waiting))
            # Before the yields below, so that workers have tasks while the caller handles the results.
            self._hand_out(root, waiting)
            yield from news

    def _run_here(self, root: Path, task: Frozen) -> Any:
        try:
            return self._execute(root, task)
        except MemoryError:
            raise StorageError(
                f"task {_name(task)}: out of memory ({_megabytes(peak_memory())} in use); finished tasks are kept: "
                "close other programs or raise the memory limit, then run the same command again"
            ) from None

    def _hand_out(self, root: Path, waiting: list[list[Frozen]]) -> None:
        """Gives each idle worker its next tasks. Starts more workers if tasks wait and `num_workers` allows."""
        idle = [worker for worker in self._workers if not worker.tasks]
        while waiting and len(self._workers) < self._num_workers and len(idle) < len(waiting):
            try:
                idle.append(self._start())
            except OSError as error:
                raise refusal(error, Path("a worker process")) from None
        for worker in idle:
            if not waiting:
                return
            worker.tasks = waiting.pop()
            worker.heard = worker.moved = self._clock.now
            with contextlib.suppress(OSError):  # the worker has ended; the next `_listen` finds out
                worker.child.pipe.send(Order(self._execute, root, worker.tasks))

    def _start(self) -> _Worker:
        self._started += 1
        child = self._supervisor.start(work, (), f"streamfeat-worker-{self._started}")
        self._workers.append(_Worker(self._started, child))
        return self._workers[-1]

    def _listen(self, worker: _Worker, news: list[Any | Note]) -> bool:
        """Handles all messages of a worker; returns whether it has ended. Raises the error of its task."""
        for message in worker.child.messages():
            worker.heard = self._clock.now
            self._ever_ready = worker.is_ready = True
            match message:
                case Beat(cpu_s, peak):
                    self._note_peak(worker, peak)
                    if cpu_s - worker.cpu_s >= STALLED_CPU_S:
                        worker.cpu_s, worker.moved = cpu_s, self._clock.now
                case Done(result, peak):
                    self._note_peak(worker, peak)
                    worker.moved = self._clock.now
                    del worker.tasks[0]
                    news.append(result)
                case Failed(MemoryError()):
                    worker.reason = "ran out of memory"
                case Failed(error, trace):
                    worker.tasks = []
                    if not isinstance(error, StreamfeatError):
                        error.add_note(f"in worker {worker.number} (process {worker.child.process.pid}):\n{trace}")
                    raise error
        return worker.child.is_gone

    def _note_peak(self, worker: _Worker, peak: int) -> None:
        worker.peak_memory = peak
        self._peaks[worker.child.process.pid or 0] = peak

    def _judge(self, worker: _Worker) -> None:
        """Sets `reason` if a worker hangs."""
        if not worker.tasks:
            return
        silent, still = self._clock.now - worker.heard, self._clock.now - worker.moved
        if not worker.is_ready:
            if silent > START_S:
                worker.reason = f"was not ready after {silent:.0f} s"
        elif silent > SILENT_S:
            worker.reason = f"was stopped or hung: no sign of life for {silent:.0f} s"
        elif still > STALLED_S:
            worker.reason = f"hung: no progress and no use of the CPU for {still:.0f} s"

    def _replace(self, worker: _Worker, waiting: list[list[Frozen]]) -> Note:
        """Removes a worker and puts its tasks back into `waiting`. Raises an error if the task has ended too many."""
        process = worker.child.process
        process.join(0 if worker.reason else END_S)
        what = f"worker {worker.number} (process {process.pid}) " + (worker.reason or worker.child.how_it_ended())
        cannot_start = not self._ever_ready and (process.exitcode or 0) > 0
        self._supervisor.forget(worker.child)
        self._workers.remove(worker)
        if cannot_start:
            raise ConfigError(
                "workers cannot start; in a script of your own, make this call below "
                "`if __name__ == '__main__':` (workers import the script), or give workers=1"
            )
        if worker.peak_memory:
            what += f", peak memory {_megabytes(worker.peak_memory)}"
        if not worker.tasks:
            return Note(f"{what}, between two tasks; another one takes its place", warning=True)
        task = _name(worker.tasks[0])
        failures = self._failures.setdefault(task, [])
        failures.append(what)
        if len(failures) == MOST_TRIES:
            raise StorageError(
                f"task {task} was given up after {MOST_TRIES} tries:\n  "
                + "\n  ".join(failures)
                + "\nfinished tasks are kept: run the same command again, with fewer --workers or more memory"
            )
        waiting.append(worker.tasks)
        return Note(f"{what}, at task {task}; another one does it again (try {len(failures) + 1})", warning=True)


def _name(task: Frozen) -> str:
    return str(getattr(task, "name", type(task).__name__))


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


class _Clock:
    """Seconds in which this process watched its workers.

    The clock does not run while this process is stopped (Ctrl-Z stops the workers, too) or while the caller of `run`
    does other things.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._last = time.monotonic()

    def tick(self) -> None:
        last, self._last = self._last, time.monotonic()
        self.now += min(self._last - last, 2 * _POLL_S)
