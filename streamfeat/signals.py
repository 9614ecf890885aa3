"""The end of a process by an exception when a signal comes, so that every `finally` runs: where it can be raised."""

import contextlib
import signal
import sys
import threading
from types import FrameType

_AGAIN_S = 0.05


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
