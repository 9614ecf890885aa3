"""Every error that a user can fix: one class for each kind of remedy, with its exit code.

A message says what went wrong, where, what was found, and what to do. Exit code 1 is for bugs, which show their
traceback; 130 and 143 are for signals.
"""

import contextlib
import errno
import importlib.util
import shlex
from collections.abc import Iterator
from pathlib import Path


class StreamfeatError(Exception):
    """An error that the user can fix. Only its subclasses are raised; they stand for the kinds of remedy."""

    exit_code = 1


class ConfigError(StreamfeatError):
    """An option, a column or a setting is wrong, or conflicts with what is on disk: change the call."""

    exit_code = 2


class DataError(StreamfeatError):
    """The events cannot be used as they are: too many bad rows, or nothing left."""

    exit_code = 3


class DamagedError(StreamfeatError):
    """A committed file is missing, truncated or altered: rebuild or restore it."""

    exit_code = 4


class LockedError(StreamfeatError):
    """Another process works here: wait for it or stop it."""

    exit_code = 5


class StorageError(StreamfeatError):
    """The disk or the network does not work as needed: free space, grant access, try again."""

    exit_code = 6


class FormatVersionError(StreamfeatError):
    """The store was written by a newer streamfeat: upgrade."""

    exit_code = 7


class DivergedError(StreamfeatError):
    """Training produced values that are not finite: lower the learning rate, look at the data."""

    exit_code = 8


class RankError(StreamfeatError):
    """Another training process ended or cannot be reached: read its message, then resume."""

    exit_code = 6


class MissingExtraError(StreamfeatError):
    """An optional dependency is not installed: install the extra that the message names."""

    exit_code = 2


def require_extra(module: str, extra: str, what: str) -> None:
    """Raises MissingExtraError if `module` is not installed. `what` needs it, and the extra `extra` installs it."""
    if importlib.util.find_spec(module) is None:
        home = Path(__file__).parents[1]
        is_checkout = (home / "pyproject.toml").exists()
        source = shlex.quote(f"{home if is_checkout else 'streamfeat'}[{extra}]")
        remedy = f"pip install {'-e ' if is_checkout else ''}{source}"
        raise MissingExtraError(f"{what} needs {module}, which is not installed: {remedy}")


_REMEDIES = {
    errno.ENOSPC: "the disk is full: make space there and run the same command again",
    errno.EDQUOT: "the disk quota is used up: make space there and run the same command again",
    errno.EFBIG: "the file would exceed a size limit: raise `ulimit -f` and run the same command again",
    errno.EACCES: "access is denied: grant this user access, or choose another folder",
    errno.EPERM: "the operation is not permitted: grant this user access, or choose another folder",
    errno.EROFS: "the file system is mounted read-only: choose another folder",
    errno.EMFILE: "this process has too many files open: raise `ulimit -n`",
    errno.ENFILE: "the machine has too many files open: close other programs, or raise fs.file-max",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
    errno.EAGAIN: "the machine allows no more processes: raise `ulimit -u`, or use fewer workers",
    errno.EIO: "the device failed: check the disk or the network, then try again",
}


def refusal(error: OSError, where: Path) -> StreamfeatError:
    """The error to raise for an OSError at `where`. Its message names the place and the remedy."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return DamagedError(
            f"{where}: a part of this path is a symbolic link, which is not followed, or a file instead of a folder, "
            "or a folder instead of a file; remove it, then restore the file or build again"
        )
    remedy = _REMEDIES.get(error.errno or 0, "check the disk, then try again")
    return StorageError(f"{where}: {error.strerror or error}; {remedy}")


@contextlib.contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turns an OSError inside the block into its `refusal`. FileNotFoundError is not changed."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refusal(error, where) from error
