"""Every error that a user can fix: one class per remedy, each with its exit code.

A message says what went wrong, where, what was found, and what to do. Exit code 1 is left to bugs, which
keep their traceback; 130 and 143 to signals.
"""


class StreamfeatError(Exception):
    """An error that the user can fix. Never raised itself: its subclasses say which remedy."""

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
    """The disk or the network refused: make space, grant access, try again."""

    exit_code = 6


class FormatVersionError(StreamfeatError):
    """The store was written by a newer streamfeat: upgrade."""

    exit_code = 7


class DivergedError(StreamfeatError):
    """Training produced values that are not finite: lower the learning rate, look at the data."""

    exit_code = 8


class RankError(StreamfeatError):
    """Another training process ended or cannot be reached: see what it said, then resume."""

    exit_code = 6


class MissingExtraError(StreamfeatError):
    """An optional dependency is not installed: install the extra that the message names."""

    exit_code = 2
