"""The last validation, the best one, and how many came after it. Saved with each checkpoint."""

from pydantic import Field

from streamfeat.records import Frozen


class Mixture(Frozen):
    """How a medium's items are scored, as chosen on validation: see `train/model/mixture.py`."""

    strength: float  # by what the transitions are multiplied that are added to the logits
    temperature: float = 1.0  # by what the logits are divided then
    shares: tuple[float, ...]  # of the parts beside the model, which has the rest
    gain: float  # of the validation loss over the model alone, in nats
    error: float  # standard error of the gain, over users


class Mixtures(Frozen):
    """The mixtures of a medium for targets whose time is told, and for those whose time is hidden."""

    told: Mixture
    hidden: Mixture


class Figures(Frozen):
    """The losses of one pass over the validation split, after `step` updates. None: no target, or not finite."""

    step: int
    loss: float | None
    watch: float | None = None  # mean over media of loss / scale; runs of older versions have none
    losses: dict[str, float | None]  # by task
    mixtures: dict[str, Mixtures] = Field(default_factory=dict)  # by medium with targets; of a best validation alone

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
