"""Which processes are there: one that has ended counts as gone, even where nobody has asked for its exit code yet."""

import os
import signal
import time
from pathlib import Path

import pytest


def is_running(pid: int) -> bool:
    return _state_and_session(pid)[0] not in ("Z", "X")


def assert_session_ends(session: int) -> None:
    """Nothing is left of a session after five seconds."""
    deadline = time.monotonic() + 5
    while left := _members(session):
        if time.monotonic() > deadline:
            commands = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in left]
            os.killpg(session, signal.SIGKILL)
            pytest.fail(f"outlived by five seconds: {commands}")
        time.sleep(0.05)


def _members(session: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if _state_and_session(pid)[1] == session and is_running(pid)]


def _state_and_session(pid: int) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # a name may hold blanks
    except (FileNotFoundError, ProcessLookupError):
        return "X", -1
    return fields[0], int(fields[3])
