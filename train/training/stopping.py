"""Checks that the monitored figure of validation exists and has targets."""

import difflib

from streamfeat.errors import ConfigError


def check_monitor(monitor: str, tasks: tuple[str, ...]) -> None:
    """Raises ConfigError, with the closest known name, if there is no such figure."""
    known = ("watch", "loss", *tasks)
    if monitor not in known:
        close = difflib.get_close_matches(monitor, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"--monitor {monitor!r}: no validation figure has that name; {hint}known: {', '.join(known)}")


def check_has_figure(monitor: str, users: dict[str, int]) -> None:
    """Raises ConfigError if no validation user (`users`, by task) has a target of `monitor`, though some have others.

    There would be no best checkpoint.
    """
    has = {**users, "loss": sum(users.values()), "watch": sum(users[task] for task in users if task.endswith("_watch"))}
    if has[monitor] == 0 and has["loss"] > 0:
        others = ", ".join(task for task in users if users[task]) or "none"
        raise ConfigError(
            f"--monitor {monitor}: no user of the validation split has a target of this task; tasks with targets: "
            f"{others}; monitor one of those or the loss, or hold out more users (--split) and build again"
        )
