"""Locks a folder for one process; makes folders and removes them again after an error."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from streamfeat.errors import LockedError, StreamfeatError, storage_errors
from streamfeat.store.files import LOCK, open_to_append

_LOCK_BYTES = 1024  # messages quote at most so many bytes of the lock


@contextlib.contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Holds the lock of `folder`. The kernel frees it when the process ends for any reason.

    Raises LockedError if another process holds it; the message says which process, since when, and what it is `doing`.
    Raises DamagedError if the lock is a link or not an ordinary file.
    """
    file = open_to_append(folder / LOCK)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, _LOCK_BYTES, 0).decode("utf-8", "replace").strip() or "process unknown"
            raise LockedError(f"{folder}: {holder} {doing} here; wait for it or stop it") from None
        if not os.fstat(file).st_nlink:  # `made_folder` of another process removed it in between
            raise LockedError(f"{folder}: another process {doing} here; run the same command again")
        with storage_errors(folder):
            os.truncate(file, 0)
            since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            os.write(file, f"process {os.getpid()} on {socket.gethostname()} (since {since})".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # earlier writes have already reported a broken disk
                os.truncate(file, 0)  # so that every finished folder has the same bytes
    finally:
        os.close(file)


@contextlib.contextmanager
def made_folder(folder: Path, doing: str) -> Iterator[None]:
    """Makes `folder` and its missing parents. If the block raises an error, removes those again that hold nothing but a
    lock that is free. `doing` is as in `locked`. Raises OSError."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, StreamfeatError):
            for path in made:
                if [entry.name for entry in path.iterdir()] == [LOCK]:
                    with locked(path, doing):
                        (path / LOCK).unlink()
                path.rmdir()
        raise
