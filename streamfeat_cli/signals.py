"""Turns Ctrl-C and SIGTERM into one line and an exit code. What is committed stays."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from streamfeat.signals import exit_by
from streamfeat_cli.console import PLAIN, err, lead_nowhere


@contextlib.contextmanager
def says_how_to_continue(remedy: str) -> Iterator[None]:
    """Turns Ctrl-C and SIGTERM into one line that ends with `remedy`, and the exit code of the signal. Workers end with
    this process."""
    with _one_line(f"stopped; {remedy}", then=None):
        yield


@contextlib.contextmanager
def whole_process() -> Iterator[None]:
    """Does the same for a command that names no remedy. After the block, signals are ignored: otherwise a signal could
    kill a finished command while Python exits, and the caller would see a failure."""
    with _one_line("stopped", then=signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _one_line(line: str, then: signal.Handlers | None) -> Iterator[None]:
    """Prints `line` if a signal comes. `then` handles signals after the block; None: the earlier handlers."""
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
        lead_nowhere(1)  # if it is a full pipe that is not read, Python's own flush would wait forever
        # DuckDB answers an interrupted query with an error of its own.
        err.print(line, **PLAIN)
        raise SystemExit(128 + received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if then is None else then)
