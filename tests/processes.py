"""Finds running processes. One that has ended counts as gone, even if its exit code was not read yet."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest


def is_running(pid: int) -> bool:
    return _state_and_session(pid)[0] not in ("Z", "X")


def assert_session_ends(session: int) -> None:
    """All processes of a session must end within a minute. A worker notices that its parent has ended after its
    imports."""
    deadline = time.monotonic() + 60
    while left := _members(session):
        if time.monotonic() > deadline:
            commands = [command_line(pid) for pid in left]
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
            pytest.fail(f"left after a minute: {commands}")
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _members(session: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if _state_and_session(pid)[1] == session and is_running(pid)]


def _state_and_session(pid: int) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # a name may hold blanks
    except (FileNotFoundError, ProcessLookupError):
        return "X", -1
    return fields[0], int(fields[3])
