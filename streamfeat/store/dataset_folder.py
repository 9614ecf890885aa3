"""Where a build, a repair and an export write: never through a symbolic link, and nobody else removes there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from streamfeat.errors import DamagedError, StorageError
from streamfeat.store.layout import HISTORIES, RECEIPTS, TEMPORARY, WINDOWS

_FOLDERS = (HISTORIES, WINDOWS, RECEIPTS, TEMPORARY)  # that a build makes


def check_no_links(root: Path) -> None:
    """Raise DamagedError where a symbolic link stands in what a build makes below `root`, or in place of it."""
    if links := links_below(root):
        raise DamagedError(
            f"{root / links[0]}: is a symbolic link; links are never followed: remove it and run the same command "
            "again (nothing was changed)"
        )


def links_below(root: Path) -> list[str]:
    """The symbolic links in the folders that a build makes below `root`, or in place of these; by name below it."""
    found = [name for name in _FOLDERS if (root / name).is_symlink()]
    for name in _FOLDERS:
        # os.walk enters no link to a folder, but one that it is given.
        for folder, folders, files in os.walk(root / name) if name not in found else ():
            paths = (Path(folder, entry) for entry in (*folders, *files))
            found += [path.relative_to(root).as_posix() for path in paths if path.is_symlink()]
    return found


def check_temporary(root: Path) -> None:
    """Raise DamagedError where `tmp` below `root` is no folder of its own: a link, a file."""
    path = root / TEMPORARY
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        what = "a symbolic link; links are never followed" if path.is_symlink() else "no folder"
        raise DamagedError(f"{path}: is {what}: remove it and run the same command again (nothing was changed)")


@contextlib.contextmanager
def nothing_removed(folder: Path) -> Iterator[None]:
    """Raise StorageError where a file is gone that was written here: nobody else has anything to do in `folder`."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            f"{folder}: {error.filename} was removed meanwhile; what was committed and is still there is kept: run the "
            "same command again, and let nothing clean up in that folder"
        ) from error
