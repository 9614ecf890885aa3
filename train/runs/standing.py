"""How validation stands: the last validation, the best one, and how many came since. Saved with each checkpoint."""

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
