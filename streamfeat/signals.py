"""Handlers of signals: they end a process by an exception, so that every `finally` runs, or ask its work to stop."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

_AGAIN_S = 0.05
# Two signals within so many seconds count as one: a terminal and torchrun both pass on one Ctrl-C.
_SAME_WISH_S = 1.0


def exit_by(number: int, frame: FrameType | None, code: int) -> None:
    """Raises SystemExit(`code`) in the handler of signal `number`, which arrived while `frame` ran.

    In two cases the signal is sent again a moment later. During an import, because an exception while an extension
    module is initialised may abort the process (as with DuckDB). And in a callback from C (as in Numba's compiler),
    where Python cannot raise the exception: it would only print it and continue.
    """
    if _is_importing(frame):
        _come_again(number)
        return
    shown = sys.unraisablehook

    def lost(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, SystemExit):
            _come_again(number)
        else:
            shown(unraisable)

    sys.unraisablehook = lost
    raise SystemExit(code)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _come_again(number: int) -> None:
    # To the main thread: a signal to the timer's own thread interrupts no call that the main thread waits in.
    main = threading.main_thread().ident or 0
    timer = threading.Timer(_AGAIN_S, signal.pthread_kill, [main, number])
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # the interpreter is already ending, so it cannot start a thread
        timer.start()


def end_at_once(number: int) -> None:
    """Ends this process by signal `number`."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def stop_on_signals(
    say: str,
    numbers: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
    *,
    at_once: Callable[[int], None] = end_at_once,
) -> Iterator[list[tuple[int, float]]]:
    """Yields a list of the received signals and their times; the work in the block should check it and stop.

    The first signal prints `say` on standard error, unless it is empty. A later one calls `at_once`.
    """
    received: list[tuple[int, float]] = []

    def note(number: int, frame: object) -> None:
        if received and time.monotonic() - received[0][1] > _SAME_WISH_S:
            at_once(number)
        if say and not received:
            with contextlib.suppress(OSError):  # a run must not end because standard error is closed
                os.write(2, f"\n{say}; once more to quit at once\n".encode())
        received.append((number, time.monotonic()))

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_on_interrupt(say: str) -> Iterator[Callable[[], bool]]:
    """The same for Ctrl-C in a script or a notebook. Yields a function that returns whether Ctrl-C was pressed. A later
    Ctrl-C raises KeyboardInterrupt.

    Python handles signals only in the main thread. In other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with stop_on_signals(say, (signal.SIGINT,), at_once=interrupt) as received:
        yield lambda: bool(received)
