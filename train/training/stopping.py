"""Which figure of validation is watched, and whether it can be."""

import difflib

from streamfeat.errors import ConfigError


def check_monitor(monitor: str, tasks: tuple[str, ...]) -> None:
    """Raise ConfigError, with the closest name, where no figure has that name."""
    known = ("loss", *tasks)
    if monitor not in known:
        close = difflib.get_close_matches(monitor, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"--monitor {monitor!r}: no validation figure has that name; {hint}known: {', '.join(known)}")


def check_has_figure(monitor: str, users: dict[str, int]) -> None:
    """Raise ConfigError where no user of validation (`users`, by task) has a target of `monitor`: no best could be."""
    if users.get(monitor) == 0:
        others = ", ".join(task for task in users if users[task]) or "none"
        raise ConfigError(
            f"--monitor {monitor}: no user of the validation split has a target of it; tasks that have: {others}; "
            "watch one of those or the loss, or hold out more users (--split) and build again"
        )
