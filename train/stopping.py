"""When a run has learned what it can: the last validation, the best one, and how many came since."""

import difflib

from streamfeat.errors import ConfigError
from streamfeat.records import Frozen


class Figures(Frozen):
    """One pass over the validation split, after `step` updates. None: no target, or not finite."""

    step: int
    loss: float | None
    losses: dict[str, float | None]  # by task

    def value(self, monitor: str) -> float | None:
        """The figure of that name: `loss`, or a task's."""
        return self.loss if monitor == "loss" else self.losses[monitor]


class Standing(Frozen):
    """How validation stands. It is saved with each checkpoint, so that a resumed run ends where it would have."""

    last: Figures | None = None
    best: Figures | None = None
    since_best: int = 0  # validations after the best that were no better

    def after(self, figures: Figures, monitor: str) -> "Standing":
        """The standing once `figures` are known. Only a lower figure is better; without any there is no best."""
        value, best = figures.value(monitor), self.best.value(monitor) if self.best else None
        if value is not None and (best is None or value < best):
            return Standing(last=figures, best=figures)
        return Standing(last=figures, best=self.best, since_best=self.since_best + (self.best is not None))

    def is_exhausted(self, patience: int) -> bool:
        """Whether `patience` validations (0: never) brought nothing better."""
        return 0 < patience <= self.since_best


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
