"""Checks that the monitored figure of validation exists and has targets."""

import difflib

from streamfeat.errors import ConfigError


def check_monitor(monitor: str, tasks: tuple[str, ...]) -> None:
    """Raises ConfigError, with the closest known name, if there is no such figure."""
    known = ("loss", *tasks)
    if monitor not in known:
        close = difflib.get_close_matches(monitor, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"--monitor {monitor!r}: no validation figure has that name; {hint}known: {', '.join(known)}")


def check_has_figure(monitor: str, users: dict[str, int]) -> None:
    """Raises ConfigError if no validation user (`users`, by task) has a target of the task `monitor`: there would be
    no best checkpoint."""
    if users.get(monitor) == 0:
        others = ", ".join(task for task in users if users[task]) or "none"
        raise ConfigError(
            f"--monitor {monitor}: no user of the validation split has a target of this task; tasks with targets: "
            f"{others}; monitor one of those or the loss, or hold out more users (--split) and build again"
        )
