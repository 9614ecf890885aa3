"""Where Numba keeps compiled kernels, on machines where neither the package's folder nor HOME can be written.

Numba looks for a folder that it can write, in this order: NUMBA_CACHE_DIR, `__pycache__` beside the kernels, the
user's cache folder; without any it refuses to import a kernel. `find_cache` adds a fourth place, a private folder
below the temporary directory. Numba unpickles what it finds there, so a folder that somebody else made or can write
is never used.
"""

import atexit
import logging
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from streamfeat.errors import storage_errors

VARIABLE = "NUMBA_CACHE_DIR"  # processes that are started from here inherit it
_BESIDE_KERNELS = Path(__file__).parent / "kernels" / "__pycache__"


def find_cache() -> Path:
    """The folder for compiled kernels; called before Numba is imported.

    Where that is the private folder, NUMBA_CACHE_DIR is set to it and one warning says so. Raises StorageError where
    the temporary directory cannot be written either.
    """
    usual = [_BESIDE_KERNELS, *_users_cache()]
    if given := os.environ.get(VARIABLE):
        usual.insert(0, Path(given))
    for folder in usual:
        if _is_writable(folder):
            return folder
    folder = private_folder(Path(tempfile.gettempdir()))
    os.environ[VARIABLE] = str(folder)
    logging.getLogger("streamfeat").warning(
        "compiled kernels are kept in %s, since none of these can be written: %s (set %s to choose a folder)",
        folder, ", ".join(map(str, usual)), VARIABLE,
    )  # fmt: skip
    return folder


def private_folder(parent: Path) -> Path:
    """This user's folder of mode 0700 below `parent`, made where it is missing.

    Where its name is taken by anything that others made or can write, a new folder for this process alone, removed at
    its end.
    """
    folder = parent / f"streamfeat-numba-{os.geteuid()}"
    with storage_errors(folder):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not _is_private(folder):
                folder = Path(tempfile.mkdtemp(prefix="streamfeat-numba-", dir=parent))
                atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_private(folder: Path) -> bool:
    found = folder.lstat()  # of a link itself: where it leads is somebody else's choice
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _users_cache() -> list[Path]:
    """Numba's, one folder at most: some users of containers have no home."""
    place = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "~/.cache")
    try:
        return [Path(place).expanduser() / "numba"]
    except RuntimeError:
        return []


def _is_writable(folder: Path) -> bool:
    """As Numba finds out: by making the folder and a file in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
