"""Ctrl-C and SIGTERM as one line and an exit code, with nothing lost."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from streamfeat.signals import exit_by
from streamfeat_cli.console import PLAIN, err, lead_nowhere


@contextlib.contextmanager
def said_how_to_go_on(remedy: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into one line and the exit code of the signal; workers end with this process."""
    with _one_line(f"stopped; {remedy}", then=None):
        yield


@contextlib.contextmanager
def whole_process() -> Iterator[None]:
    """The same where a command has nothing to say of them. What follows is Python's own end, which they cannot disturb:
    a command that is done would die there, by a signal that its caller takes for a failure."""
    with _one_line("stopped", then=signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _one_line(line: str, then: signal.Handlers | None) -> Iterator[None]:
    """`then` handles signals afterwards; None: what did before."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        exit_by(number, frame, 128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:
        if not received:
            raise
        lead_nowhere(1)  # it may be a pipe that nobody empties: Python's own flush would wait for that
        # DuckDB answers an interrupted query with an error of its own.
        err.print(line, **PLAIN)
        raise SystemExit(128 + received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if then is None else then)
