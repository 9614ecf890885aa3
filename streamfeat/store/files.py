"""Files below a folder: writes them whole and durably, and opens them without following symbolic links.

A path consists of a folder, which the user gave and which is trusted, and a name below it (`a/b/c`). Each step of the
name is opened relative to the one before with O_NOFOLLOW, so that a link in a downloaded dataset is not followed. The
first step may be a link if its name is in MAY_BE_LINKS.
"""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from streamfeat.errors import DamagedError, StorageError, storage_errors

STEP = re.compile(r"(?!\.{1,2}$)[a-z0-9_.-]{1,64}")  # one step of a name: lower case, no separator, not . or ..
TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{32}\.tmp")  # .<name>.<pid>.<uuid>.tmp
# Folders of a dataset or a run that users may keep on another disk, behind a symbolic link. Links inside them are not
# followed.
MAY_BE_LINKS = frozenset({"checkpoints", "histories.zarr", "live", "windows.zarr"})
LOCK = ".lock"  # the process that writes into the folder locks this file
HASH_BLOCK = 1 << 20  # bytes read at a time into reused memory


def steps_of(name: str) -> list[str]:
    """The steps of a name below a folder.

    Names are read from files, so this raises DamagedError for a name that could lead outside or that no dataset has.
    """
    steps = name.split("/")
    if not all(STEP.fullmatch(step) for step in steps):
        raise DamagedError(f"{name!r} cannot name a file of a dataset (each step matches {STEP.pattern})")
    return steps


def temporary_name(name: str) -> str:
    """A unique name for a temporary file or folder. It matches `TEMPORARY`, so that what a killed writer leaves is
    found."""
    return f".{name}.{os.getpid()}.{uuid.uuid4().hex}.tmp"


def write_durably(root: Path, name: str, parts: Iterable[bytes | bytearray | memoryview]) -> tuple[int, str]:
    """Writes `parts` one after the other as the file `name` below `root`; returns its size and SHA-256 in hex.

    Creates missing folders below `root`. Readers see all of the file or nothing, as with `replaced_durably`. Raises
    StorageError if writing fails, DamagedError at a link.
    """
    *folders, last = steps_of(name)
    digest, size = hashlib.sha256(), 0
    with storage_errors(root / name), _opened_folder(root, folders) as folder, _replaced(folder, last) as file:
        for part in parts:
            size += file.write(part)
            digest.update(part)
    return size, digest.hexdigest()


@contextlib.contextmanager
def replaced_durably(path: Path) -> Iterator[BinaryIO]:
    """An open file that becomes the file `path` at the end of the block, unless an error is raised.

    Readers see all of it or nothing, even after a power loss: it writes a temporary file, then does fsync, rename, and
    fsync of the folder. Raises OSError.
    """
    with _opened_folder(path.parent, []) as folder, _replaced(folder, path.name) as file:
        yield file


@contextlib.contextmanager
def _replaced(folder: int, name: str) -> Iterator[BinaryIO]:
    temporary = temporary_name(name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o666, dir_fd=folder), "wb", buffering=HASH_BLOCK) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)


def rename_durably(old: Path, new: Path) -> None:
    """Renames the file or folder `old`, which is already durable, to `new`. The name survives a power loss.

    Raises OSError.
    """
    old.rename(new)
    for folder in {old.parent, new.parent}:
        with _opened_folder(folder, []) as handle:
            os.fsync(handle)


@contextlib.contextmanager
def _opened_folder(root: Path, steps: list[str], *, make: bool = True) -> Iterator[int]:
    """A handle of the folder below `root`. With `make`, missing folders are created, durably."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place, step in enumerate(steps):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, dir_fd=here)
                    os.fsync(here)
            may_be_link = place == 0 and step in MAY_BE_LINKS
            if may_be_link:
                check_link(root / step)
            follow = 0 if may_be_link else os.O_NOFOLLOW
            there = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow, dir_fd=here)
            os.close(here)
            here = there
        yield here
    finally:
        os.close(here)


def open_below(root: Path, name: str) -> int:
    """A read-only handle of the file `name` below `root`, opened without following a link. The caller closes it.

    Raises FileNotFoundError if it is missing, DamagedError if it is a link or not an ordinary file, StorageError if it
    cannot be opened.
    """
    *folders, last = steps_of(name)
    with storage_errors(root / name), _opened_folder(root, folders, make=False) as folder:
        # O_NONBLOCK: otherwise a named pipe instead of the file would block the reader.
        file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            check_ordinary(file, root / name)
        except BaseException:
            os.close(file)
            raise
    return file


def open_to_append(path: Path, remedy: str = "restore the file or build again") -> int:
    """A handle of the file `path`, which is created if it is missing. Writes go to its end. The caller closes it.

    Raises StorageError if it cannot be opened, DamagedError if it is a link or not an ordinary file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with storage_errors(path):
        file = os.open(path, flags, 0o666)
    try:
        check_ordinary(file, path, remedy)
    except BaseException:
        os.close(file)
        raise
    return file


def check_ordinary(file: int, where: Path, remedy: str = "restore the file or build again") -> None:
    """Raises DamagedError if the open `file` at `where` is not an ordinary file but a pipe, a folder or the like."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise DamagedError(f"{where}: is not an ordinary file; remove it, then {remedy}")


def read_below(root: Path, name: str, most_bytes: int) -> bytes:
    """The bytes of the file `name` below `root`. Raises the errors of `open_below`, and DamagedError if it has more
    than `most_bytes`."""
    with storage_errors(root / name), os.fdopen(open_below(root, name), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most_bytes:
            return file.read(size)
    raise DamagedError(
        f"{root / name}: has {size} bytes, but such a file has at most {most_bytes}; restore it or build again"
    )


def read_in_folder(folder: Path, name: str, most_bytes: int) -> bytes:
    """`read_below` in a folder that a user names. Raises FileNotFoundError, which says what is missing, and
    StorageError if `folder` is a broken link."""
    check_link(folder)
    with storage_errors(folder):
        if not folder.is_dir():
            raise FileNotFoundError("it is a file, not a folder" if folder.exists() else "there is no such folder")
    try:
        return read_below(folder, name, most_bytes)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name} is missing") from None


def refuse_link(folder: Path) -> None:
    """Raises DamagedError if `folder` is a symbolic link: a downloaded dataset or run must not lead outside."""
    if folder.is_symlink():
        raise DamagedError(f"{folder}: is a symbolic link, which is not followed; put the folder itself there")


def check_link(folder: Path) -> None:
    """Raises StorageError if `folder` is a symbolic link that does not lead to a folder, for instance because a disk is
    not mounted."""
    if folder.is_symlink() and not folder.is_dir():
        raise StorageError(
            f"{folder}: is a symbolic link to {folder.readlink()}, but there is no such folder; mount its disk, make "
            "that folder, or remove the link"
        )


def is_stray_link(root: Path, name: str) -> bool:
    """Whether `name` below `root` is a link but may not be one."""
    return name not in MAY_BE_LINKS and (root / name).is_symlink()


def is_own_folder(path: Path) -> bool:
    """Whether `path` is a folder and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def links_below(root: Path, names: Iterable[str]) -> list[str]:
    """The names of the symbolic links in the folders `names` of `root`, and of those folders that are links. Links that
    are allowed (MAY_BE_LINKS) are left out."""
    found = []
    for name in names:
        if is_stray_link(root, name):
            found.append(name)
            continue
        for folder, folders, files in os.walk(root / name):  # does not follow links below `name`
            paths = (Path(folder, entry) for entry in (*folders, *files))
            found += [path.relative_to(root).as_posix() for path in paths if path.is_symlink()]
    return found


def foreign_names(folder: Path) -> list[str]:
    """The names in `folder` because of which it is not empty. A lock, temporary files of killed writers, and allowed
    links to empty folders do not count. Raises OSError, and StorageError for a broken link."""
    names = []
    for entry in sorted(folder.iterdir()):
        if entry.name == LOCK or TEMPORARY.fullmatch(entry.name):
            continue
        if entry.name in MAY_BE_LINKS and entry.is_symlink():
            check_link(entry)
            if not any(entry.iterdir()):
                continue
        names.append(entry.name)
    return names


def size_and_digest(root: Path, name: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 in hex of the file `name` below `root`, read in blocks of reused memory.

    Raises FileNotFoundError if it is missing, DamagedError if it is a link, StorageError if it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    block = memoryview(bytearray(HASH_BLOCK))
    with storage_errors(root / name), os.fdopen(open_below(root, name), "rb", buffering=0) as file:
        while num_read := file.readinto(block):
            digest.update(block[:num_read])
            size += num_read
    return size, digest.hexdigest()


def remove(path: Path) -> None:
    """Removes a file, a folder with its content, or a link itself; does nothing if there is nothing.

    Raises OSError: the caller turns it into its own error (`storage_errors`).
    """
    if is_own_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_ours(folder: Path, ours: re.Pattern[str]) -> None:
    """Removes from `folder` files with a name of `ours` and those of killed writers, then the folder if it is empty.

    Other files stay. If `folder` is a link that is allowed, the link and the folder behind it stay; another link is
    removed. Raises OSError.
    """
    if not folder.is_dir() or is_stray_link(folder.parent, folder.name):
        remove(folder)
        return
    for entry in folder.iterdir():
        if ours.fullmatch(entry.name) or TEMPORARY.fullmatch(entry.name):
            remove(entry)
    if not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def sweep_temporaries(root: Path, spared: str = "") -> list[str]:
    """Removes temporary files of killed writers below `root`; returns their names. The caller must hold the folder's
    lock.

    The folder `spared` below the root is skipped, because other processes write there.
    """
    swept = []
    linked = [root / name for name in MAY_BE_LINKS - {spared} if (root / name).is_symlink()]
    for folder, folders, names in itertools.chain.from_iterable(map(os.walk, [root, *linked])):
        if folder == str(root) and spared in folders:
            folders.remove(spared)
        for name in names:
            if TEMPORARY.fullmatch(name):
                path = Path(folder, name)
                with storage_errors(path):
                    path.unlink(missing_ok=True)
                swept.append(str(path.relative_to(root)))
    return sorted(swept)
