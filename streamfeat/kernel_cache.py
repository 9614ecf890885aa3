"""Finds a folder for compiled kernels, even if neither the package's folder nor HOME is writable.

Numba takes the first writable folder of these: NUMBA_CACHE_DIR, `__pycache__` next to the kernels, the user's cache
folder. Without one, importing a kernel fails. `find_cache` adds a fourth place, a private folder below the temporary
directory. Numba unpickles files of its cache, so a folder that another user made or can write is never used.
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

VARIABLE = "NUMBA_CACHE_DIR"  # child processes inherit it
_BESIDE_KERNELS = Path(__file__).parent / "kernels" / "__pycache__"


def find_cache() -> Path:
    """The folder for compiled kernels. Must be called before Numba is imported.

    If it is the private folder, this sets NUMBA_CACHE_DIR and logs a warning. Raises StorageError if the temporary
    directory is not writable either.
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
        "compiled kernels are kept in %s, because none of these is writable: %s (set %s to choose a folder)",
        folder,
        ", ".join(map(str, usual)),
        VARIABLE,
    )
    return folder


def private_folder(parent: Path) -> Path:
    """This user's folder of mode 0700 below `parent`; created if missing.

    If another user made or can write the file or folder of this name, returns a new folder for this process only, which
    is removed when the process ends.
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
    found = folder.lstat()  # does not follow a link: another user may have made it
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _users_cache() -> list[Path]:
    """Numba's cache folder of the user; [] if the user has no home, as in some containers."""
    place = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "~/.cache")
    try:
        return [Path(place).expanduser() / "numba"]
    except RuntimeError:
        return []


def _is_writable(folder: Path) -> bool:
    """Checks like Numba: creates the folder and a file in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
