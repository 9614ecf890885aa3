"""A parent's side: processes that are started, heard and ended in one way."""

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

END_S = 5.0  # that a process has to end when it is asked to


class Child:
    """A spawned process, and this end of the pipe through which it reports.

    It runs `target(parent, pipe, *args)`, whose first call is `start_worker(parent)`. Made by `Supervisor.start`.
    """

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(os.getpid(), theirs, *args), name=name, daemon=True)
        self.is_gone = False  # it closed its end of the pipe
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def messages(self) -> Iterator[Any]:
        """What it has said and nobody has heard; what a killed process left half said is dropped."""
        try:
            while not self.pipe.closed and self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            self.is_gone = True

    def how_it_ended(self) -> str:
        """The end of a process that has ended by itself or was killed by others, for people."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with code {code}"
        by = f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return by + (", likely for lack of memory" if -code == signal.SIGKILL else "")

    def bury(self) -> None:
        """Kill what still lives; a process that the system does not let go of is left to it."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
            self.process.join(END_S)


class Supervisor:
    """The processes that one parent has started, which end with `end`."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    def start(self, target: Callable[..., None], args: tuple[Any, ...], name: str) -> Child:
        """A new process. A signal that comes meanwhile waits until it is known here. Raises OSError where the system
        allows none."""
        with _signals_held():
            self.children.append(Child(target, args, name))
        return self.children[-1]

    def forget(self, child: Child) -> None:
        """Bury a process that is not needed any more, or that has ended."""
        child.bury()
        self.children.remove(child)

    def end(self) -> None:
        """End all processes, in the middle of their work too."""
        for child in self.children:
            child.process.terminate()
        deadline = time.monotonic() + END_S
        for child in self.children:
            child.process.join(max(deadline - time.monotonic(), 0))
            child.bury()
        self.children.clear()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait while a process is started here.

    It inherits that they are blocked, until `start_worker`: no half-started process answers Ctrl-C with a traceback,
    and none is left unknown to a parent that is interrupted in the middle.
    """
    resource_tracker.ensure_running()  # starting a process does this too, and would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    received: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # another thread may be the one that gets a signal
        handlers = {number: signal.signal(number, lambda number, _: received.append(number)) for number in HELD}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in received:
            signal.raise_signal(number)
