"""The parent's side: starts child processes, receives their messages and ends them."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any

from streamfeat.workers.process import HELD

END_S = 5.0  # a process has so long to end after SIGTERM


class Child:
    """A spawned process, and the parent's end of the pipe through which it reports.

    It runs `target(parent, pipe, *args)`, which must first call `start_worker(parent)`. Created by `Supervisor.start`.
    """

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(os.getpid(), theirs, *args), name=name, daemon=True)
        self.is_gone = False  # whether it has closed its end of the pipe
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def messages(self) -> Iterator[Any]:
        """The messages that it sent and that were not yet read. A partial message of a killed process is dropped."""
        try:
            while not self.pipe.closed and self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            self.is_gone = True

    def how_it_ended(self) -> str:
        """Text that says how the process ended: with which code, or by which signal."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with code {code}"
        by = f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return by + (", likely for lack of memory" if -code == signal.SIGKILL else "")

    def bury(self) -> None:
        """Closes the pipe and kills the process if it still runs. Does not wait longer than END_S for it."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
            self.process.join(END_S)


class Supervisor:
    """The processes that one parent has started. `end` ends them all."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    def start(self, target: Callable[..., None], args: tuple[Any, ...], name: str) -> Child:
        """Starts a process. A signal that arrives meanwhile is handled after the process was recorded here. Raises
        OSError if the system does not allow another process."""
        with _signals_held():
            self.children.append(Child(target, args, name))
        return self.children[-1]

    def forget(self, child: Child) -> None:
        """Removes a process that has ended or is no longer needed; kills it if it still runs."""
        child.bury()
        self.children.remove(child)

    def end(self) -> None:
        """Ends all processes, even if they are working."""
        for child in self.children:
            child.process.terminate()
        deadline = time.monotonic() + END_S
        for child in self.children:
            child.process.join(max(deadline - time.monotonic(), 0))
            child.bury()
        self.children.clear()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM while a process is started.

    The new process inherits the blocked signals until it calls `start_worker`, so it does not print a traceback on
    Ctrl-C. The parent is not interrupted between starting a process and recording it.
    """
    resource_tracker.ensure_running()  # otherwise starting a process does this, and it unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    received: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # handlers too: another thread may receive the signal
        handlers = {number: signal.signal(number, lambda number, _: received.append(number)) for number in HELD}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in received:
            signal.raise_signal(number)
