"""The last validation, the best one, and how many came after it. Saved with each checkpoint."""

from pydantic import Field

from streamfeat.records import Frozen


class TransitionStrength(Frozen):
    """By what the transitions of a medium's items are multiplied, as chosen on validation."""

    strength: float  # 0: the model alone is better, or not clearly worse
    gain: float  # of the validation loss over strength 0, in nats
    error: float  # standard error of the gain, over users


class Figures(Frozen):
    """The losses of one pass over the validation split, after `step` updates. None: no target, or not finite."""

    step: int
    loss: float | None
    watch: float | None = None  # mean over media of loss / scale; runs of older versions have none
    losses: dict[str, float | None]  # by task
    transitions: dict[str, TransitionStrength] = Field(default_factory=dict)  # by medium with targets

    def value(self, monitor: str) -> float | None:
        """The figure named `monitor`: `watch`, `loss`, or the loss of a task."""
        return {"loss": self.loss, "watch": self.watch, **self.losses}[monitor]


class Standing(Frozen):
    """The state of validation. Checkpoints hold it, so that a resumed run stops at the same step."""

    last: Figures | None = None
    best: Figures | None = None
    since_best: int = 0  # validations after the best one

    def after(self, figures: Figures, monitor: str, *, is_counted: bool = True) -> "Standing":
        """The state after a validation with `figures`. Lower is better. A validation without the figure is never the
        best. `is_counted`: whether it counts towards patience if it is not the best."""
        value, best = figures.value(monitor), self.best.value(monitor) if self.best else None
        if value is not None and (best is None or value < best):
            return Standing(last=figures, best=figures)
        return Standing(
            last=figures, best=self.best, since_best=self.since_best + (self.best is not None and is_counted)
        )

    def is_exhausted(self, patience: int) -> bool:
        """Whether the last `patience` validations were not better than the best. With 0: never."""
        return 0 < patience <= self.since_best
