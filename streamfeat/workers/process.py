"""The worker's side: a spawned process that ends with its parent, runs one task after the other and reports.

A thread reports every second that the process is alive, its CPU time and its memory. From this the parent can
distinguish a slow task from a process that hangs (`pool.py`).
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
HELD: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)  # signals that are delayed while a process is started

Execute = Callable[[Path, Any], Any]  # (root, task) → result of the task, usually its receipt


@dataclass(frozen=True)
class Order:
    """Message of the parent: run these tasks one after the other."""

    execute: Execute
    root: Path
    tasks: Sequence[Frozen]


@dataclass(frozen=True)
class Beat:
    """Message of a worker when it is ready, and then every second."""

    cpu_s: float  # CPU time since its start
    peak_memory: int  # bytes


@dataclass(frozen=True)
class Done:
    """Message of a worker: the first of its remaining tasks is done."""

    result: Any
    peak_memory: int  # bytes


@dataclass(frozen=True)
class Failed:
    """Message of a worker: its task raised `error`; it drops the rest of the order. After MemoryError it ends."""

    error: Exception
    trace: str


def start_worker(parent: int) -> None:
    """The first call in a spawned process: ends it when the process `parent` ends, and ignores Ctrl-C.

    SIGTERM ends it by an exception.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    # An exception lets Python remove a partial file and release semaphores of libraries.
    signal.signal(signal.SIGTERM, lambda number, frame: exit_by(number, frame, 0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    with contextlib.suppress(OSError):  # macOS does not have this file, some sandboxes not this line
        # On Linux ru_maxrss also counts the memory of the process that started this one.
        if line := re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(line[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def work(parent: int, pipe: Pipe) -> None:
    """The main function of a worker: runs the `Order`s that come through `pipe` until it is closed."""
    start_worker(parent)
    speaker = _Speaker(pipe)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has closed the pipe
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
            sys.exit(1)  # frees all memory of the process
        except Exception as error:  # noqa: BLE001 - raised again in the parent
            speaker.say(Failed(_sendable(error), traceback.format_exc()))
            return
        speaker.say(Done(result, peak_memory()))


def _sendable(error: Exception) -> Exception:
    """The error, or a RuntimeError with its text if the error could not be unpickled in the parent."""
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
        with contextlib.suppress(OSError):  # the parent has ended, and soon this process
            while True:
                time.sleep(BEAT_S)
                self.say_alive()
