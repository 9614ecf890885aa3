"""The folder of a live run, `OUT/live/RUN_ID/`: creates it, reads it, and finds out whether the run still lives.

RUN_ID/
  run.json               `LiveRun`; written before the folder gets its name by a rename
  rank-R.json            see positions.py
  windows.zarr/PACKING   shards, as in the dataset's own windows.zarr
  receipts/ locks/       a receipt commits a shard; a lock is held by the process that writes it
  .lock                  held by rank 0; the kernel frees it when that process ends for any reason
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from streamfeat.errors import ConfigError, DamagedError, FormatVersionError, LockedError, storage_errors
from streamfeat.live.schedule import least_disk_bytes, max_shard_bytes
from streamfeat.records import Frozen, read_back
from streamfeat.store.files import LOCK, read_below, rename_durably
from streamfeat.store.layout import RECEIPTS
from streamfeat.store.live_folders import (
    hidden_folders,
    is_held,
    live_folder,
    new_run_id,
    remove_folder,
    run_folders,
)
from streamfeat.store.locks import locked
from streamfeat.store.manifest import Manifest
from streamfeat.store.writer import write_whole

RUN_FILE = "run.json"
LOCKS = "locks"
MAX_RUN_BYTES = 2**20
_START_TRIES_S = 30.0  # wait so long for the lock of OUT/live, which is held while dead runs are removed


class LiveRun(Frozen):
    """`run.json`: all that a producer must know besides the dataset."""

    known_format = ("format", 1)

    format: Literal[1] = 1
    run_id: str
    fingerprint: str  # of the dataset
    seed: int  # of the run
    batch_windows: int
    world_size: int = Field(ge=1)
    start: int = Field(ge=0)  # the first global batch that is read
    stop: int  # the first global batch that is not read
    disk_bytes: int  # limit of the size of this run's folder
    timeout_s: float  # other hosts regard the run as dead after this time without a sign of life
    host: str
    pid: int
    trial: bool = False  # a dry run: separate producers (`build-shards --live`) do not serve it
    started: str  # UTC, information for users only


@contextlib.contextmanager
def start_run(
    root: Path,
    manifest: Manifest,
    *,
    seed: int,
    batch_windows: int,
    world_size: int,
    start: int,
    stop: int,
    disk_bytes: int,
    producers: int,
    timeout_s: float = 600.0,
    trial: bool = False,
) -> Iterator[Path]:
    """Creates the folder of a live run on the dataset `root`; called by rank 0. On exit the folder is removed.

    The run reads the global batches `start` to `stop` - 1. Folders of dead runs are removed first. Raises ConfigError
    if `disk_bytes` is less than `least_disk_bytes`, StorageError if the folder cannot be created.
    """
    least = least_disk_bytes(manifest, batch_windows, producers, world_size=world_size)
    if disk_bytes < least:
        raise ConfigError(
            f"--live-disk {disk_bytes}: is too small: {least} bytes are needed, for the shards (of up to "
            f"{max_shard_bytes(manifest)} bytes) that are read together and one for each of {producers} producers; "
            f"give --live-disk {least} or more, or build the dataset with smaller shards (--shard-windows)"
        )
    run = LiveRun(
        run_id=new_run_id(),
        fingerprint=manifest.fingerprint,
        seed=seed,
        batch_windows=batch_windows,
        world_size=world_size,
        start=start,
        stop=stop,
        disk_bytes=disk_bytes,
        timeout_s=timeout_s,
        trial=trial,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    folder = live_folder(root) / run.run_id
    hidden = folder.with_name(f".{run.run_id}.new")
    with contextlib.ExitStack() as held:
        with _only_starter(root):
            remove_dead_runs(root)
            with storage_errors(hidden):
                hidden.mkdir()
            held.callback(lambda: remove_folder(folder if folder.exists() else hidden))
            held.enter_context(locked(hidden, "trains live"))
            with storage_errors(hidden):
                (hidden / LOCKS).mkdir()
                (hidden / RECEIPTS).mkdir()
            write_whole(hidden, RUN_FILE, (run.model_dump_json(indent=1) + "\n").encode())
            with storage_errors(folder):
                rename_durably(hidden, folder)
        yield folder


@contextlib.contextmanager
def _only_starter(root: Path) -> Iterator[None]:
    """Holds the lock of OUT/live, so that no other process creates or removes run folders."""
    live = live_folder(root)
    with storage_errors(live), contextlib.suppress(FileExistsError):  # `locked` checks what is there
        live.mkdir()
    deadline = time.monotonic() + _START_TRIES_S
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(live, "starts a live run"))
                break
            except LockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield


def read_run(folder: Path) -> LiveRun:
    """Reads `run.json`.

    Raises FileNotFoundError if the folder does not exist, DamagedError if the file cannot be read, FormatVersionError
    if a newer streamfeat wrote it.
    """
    data = read_below(folder, RUN_FILE, MAX_RUN_BYTES)
    return read_back(LiveRun, data, folder / RUN_FILE, "start the live training again")


def living_runs(root: Path) -> list[tuple[Path, LiveRun]]:
    """The runs on the dataset `root` that are not known to have ended, oldest first."""
    found = []
    for folder in run_folders(root):
        with contextlib.suppress(FileNotFoundError, DamagedError, FormatVersionError):
            run = read_run(folder)
            if not _is_dead(folder, run):
                found.append((folder, run))
    return found


def remove_dead_runs(root: Path) -> None:
    """Removes the folders of dead runs. The caller holds the lock of OUT/live."""
    for folder in hidden_folders(root):
        if not is_held(folder):
            remove_folder(folder)
    for folder in run_folders(root):
        try:
            dead = _is_dead(folder, read_run(folder))
        except (FileNotFoundError, DamagedError, FormatVersionError):
            dead = not is_held(folder)
        if dead:
            remove_folder(folder)


def clean_up(root: Path) -> None:
    """Calls `remove_dead_runs`, unless another process does so or starts a run."""
    with contextlib.suppress(LockedError, FileNotFoundError), locked(live_folder(root), "cleans up"):
        remove_dead_runs(root)


def _has_died(folder: Path, run: LiveRun) -> bool:
    """Whether rank 0 has certainly ended. Only its own host knows: locks may not be visible on other hosts."""
    return run.host == socket.gethostname() and not is_held(folder)


def _is_dead(folder: Path, run: LiveRun) -> bool:
    """Whether rank 0 has ended. For a run on another host this is decided by its last sign of life."""
    return _has_died(folder, run) or (run.host != socket.gethostname() and _silent_s(folder, run) > run.timeout_s)


def _silent_s(folder: Path, run: LiveRun) -> float:
    """Seconds since the last sign of life. Both times come from the clock of the file system."""
    lock = folder.parent / LOCK
    with storage_errors(lock):
        lock.touch()
        now = lock.stat().st_mtime
    seen = [_status(folder / name) for name in (RUN_FILE, *(rank_file(rank) for rank in range(run.world_size)))]
    return now - max((status[1] / 1e9 for status in seen if status is not None), default=now)


class RunWatch:
    """Watches whether a run has ended. It measures the time between signs of life with its own clock only."""

    def __init__(self, folder: Path, run: LiveRun) -> None:
        self._folder, self._run = folder, run
        self._seen: object = None
        self._changed = time.monotonic()

    def ended(self) -> str | None:
        """The reason why the run has ended; None while it lives."""
        if not (self._folder / RUN_FILE).exists():
            return "its folder is gone"
        if _has_died(self._folder, self._run):
            return "its trainer was killed"
        seen = [_status(self._folder / rank_file(rank)) for rank in range(self._run.world_size)]
        if seen != self._seen:
            self._seen, self._changed = seen, time.monotonic()
        if time.monotonic() - self._changed > self._run.timeout_s:
            return f"no rank has given a sign of life for {self._run.timeout_s:g} s"
        return None


def rank_file(rank: int) -> str:
    """The name of the file in the run's folder that holds a rank's position."""
    return f"rank-{rank}.json"


def _status(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
