"""A worker's side: a spawned process that dies with its parent, runs one task after the other and reports.

A thread says every second that the process is alive, how much CPU time it has used and how much memory it needed: by
this the parent tells a slow task from a process that hangs (`pool.py`).
"""

import contextlib
import copy
import ctypes
import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from streamfeat.records import Frozen
from streamfeat.signals import exit_by

__all__ = ["HELD", "Beat", "Done", "Execute", "Failed", "Order", "Pipe", "peak_memory", "start_worker", "work"]

BEAT_S = 1.0
_PR_SET_PDEATHSIG = 1
HELD: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)  # while a process is started

Execute = Callable[[Path, Any], Any]  # the second is one of the tasks that are run; returns what committed it


@dataclass(frozen=True)
class Order:
    """What the parent sends: tasks to run in turn."""

    execute: Execute
    root: Path
    tasks: Sequence[Frozen]


@dataclass(frozen=True)
class Beat:
    """Sent when the process is ready, and every second from then on."""

    cpu_s: float  # of the process since its start
    peak_memory: int  # bytes


@dataclass(frozen=True)
class Done:
    """The first of the tasks that were left is done."""

    result: Any
    peak_memory: int  # bytes


@dataclass(frozen=True)
class Failed:
    """The task raised; the rest of its order is dropped. Out of memory: the process ends, as if it had been killed."""

    error: Exception
    trace: str


def start_worker(parent: int) -> None:
    """First call of a spawned process: it dies with its parent, the process `parent`, and leaves Ctrl-C to it.

    SIGTERM ends it by an exception.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    # Ends through Python, which takes back half a file and the semaphores that libraries hold.
    signal.signal(signal.SIGTERM, lambda number, frame: exit_by(number, frame, 0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def peak_memory() -> int:
    """The largest resident size that this process has had, in bytes."""
    with contextlib.suppress(OSError):  # no such file on macOS, nor such a line in some sandboxes
        # Linux counts in ru_maxrss what the process held that started this one, too.
        if line := re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(line[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def work(parent: int, pipe: Pipe) -> None:
    """What a worker process does: runs the `Order`s that come through `pipe` until it is closed."""
    start_worker(parent)
    speaker = _Speaker(pipe)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent needs nothing any more
        speaker.say_alive()
        threading.Thread(target=speaker.beat, daemon=True).start()
        while True:
            _run(pipe.recv(), speaker)


def _run(order: Order, speaker: "_Speaker") -> None:
    for task in order.tasks:
        try:
            result = order.execute(order.root, task)
        except MemoryError as error:
            speaker.say(Failed(MemoryError(str(error)), ""))
            sys.exit(1)  # what it holds is given back whole
        except Exception as error:  # noqa: BLE001 - raised again in the parent
            speaker.say(Failed(_sendable(error), traceback.format_exc()))
            return
        speaker.say(Done(result, peak_memory()))


def _sendable(error: Exception) -> Exception:
    """The error, or one of the same text where it could not be put together again on the other side."""
    try:
        copy.copy(error)
    except (TypeError, ValueError, AttributeError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Speaker:
    """The writing end of a pipe that two threads share."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def say(self, message: Beat | Done | Failed) -> None:
        with self._lock:
            self._pipe.send(message)

    def say_alive(self) -> None:
        self.say(Beat(time.process_time(), peak_memory()))

    def beat(self) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and soon this process
            while True:
                time.sleep(BEAT_S)
                self.say_alive()
