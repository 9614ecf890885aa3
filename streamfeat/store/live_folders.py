"""The folders of live runs below a dataset: finds them, checks whether a process holds one, and removes them.

Builder and trainer both need this. `streamfeat.live` handles the content of these folders.
"""

import fcntl
import os
import re
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from streamfeat.store.files import LOCK, check_link, is_own_folder, open_below
from streamfeat.store.layout import LIVE

RUN_ID = re.compile(r"\d{8}t\d{6}\.\d{6}-[0-9a-f]{8}")
_HIDDEN = re.compile(rf"\.{RUN_ID.pattern}\.(new|gone)")  # being created, being removed
_REMOVAL_TRIES = 5


def new_run_id() -> str:
    """A unique name of a run. Names sort by the time of the start."""
    return f"{datetime.now(UTC):%Y%m%dt%H%M%S.%f}-{secrets.token_hex(4)}"


def run_folders(root: Path) -> list[Path]:
    """The run folders below the dataset `root`, living or dead, oldest first."""
    return _folders(root, RUN_ID)


def hidden_folders(root: Path) -> list[Path]:
    """Run folders that are being created or removed, maybe by a process that was killed."""
    return _folders(root, _HIDDEN)


def live_folder(root: Path) -> Path:
    """The path OUT/live, which may not exist. It may be a link; raises StorageError if the link is broken."""
    check_link(root / LIVE)
    return root / LIVE


def _folders(root: Path, pattern: re.Pattern[str]) -> list[Path]:
    try:
        paths = list(live_folder(root).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(path for path in paths if pattern.fullmatch(path.name) and is_own_folder(path))


def is_held(folder: Path) -> bool:
    """Whether a process on this host holds the lock of a run folder. False if the folder does not exist."""
    try:
        with os.fdopen(open_below(folder, LOCK), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except FileNotFoundError:
        pass
    return False


def remove_folder(folder: Path) -> None:
    """Removes a run folder. It is renamed first, so that a process that still writes into it notices and stops."""
    gone = folder.with_name(f".{folder.name.strip('.').removesuffix('.new').removesuffix('.gone')}.gone")
    try:
        if folder != gone:
            folder.rename(gone)
    except FileNotFoundError:
        return  # another process removes it
    for _ in range(_REMOVAL_TRIES):  # a process may still add a file while the folder is removed
        shutil.rmtree(gone, ignore_errors=True)
        if not gone.exists():
            return
