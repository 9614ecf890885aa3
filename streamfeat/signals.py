"""What a signal does: it ends a process by an exception, so that every `finally` runs, or asks its work to stop."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

_AGAIN_S = 0.05
# Within so many seconds a second signal is the same wish: a terminal and torchrun both pass Ctrl-C on.
_SAME_WISH_S = 1.0


def exit_by(number: int, frame: FrameType | None, code: int) -> None:
    """Raise SystemExit(`code`) from the handler of signal `number`, which came while `frame` ran.

    Twice it has the signal come once more, a moment later: in an import, since the start of an extension module that
    is interrupted may abort the process (DuckDB's does), and where Python finds nobody to raise it to, as in a callback
    from C (numba's compiler has one): it would print the exception and go on as if nothing had been said.
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
    timer = threading.Timer(_AGAIN_S, signal.raise_signal, [number])
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread starts in an interpreter that is ending, as it should
        timer.start()


def end_at_once(number: int) -> None:
    """End this process by signal `number`."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def stop_on_signals(
    say: str,
    numbers: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
    *,
    at_once: Callable[[int], None] = end_at_once,
) -> Iterator[list[tuple[int, float]]]:
    """Signals that asked the work inside to stop, and when; what it does then is `say`, told on standard error unless
    empty. A later one ends it `at_once`."""
    received: list[tuple[int, float]] = []

    def note(number: int, frame: object) -> None:
        if received and time.monotonic() - received[0][1] > _SAME_WISH_S:
            at_once(number)
        if say and not received:
            with contextlib.suppress(OSError):  # a log that cannot be written ends no run
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
    """The same for Ctrl-C in a script or a notebook: gives whether it was pressed. A later one is a KeyboardInterrupt.

    Signals reach the main thread alone: elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with stop_on_signals(say, (signal.SIGINT,), at_once=interrupt) as received:
        yield lambda: bool(received)
