"""The messages that a training run yields. The library prints nothing."""

from dataclasses import dataclass
from pathlib import Path

from streamfeat.progress import Note, Progress
from streamfeat.records import Frozen
from train.model.carried import MediumCounts
from train.runs.standing import Figures

Losses = dict[str, float | None]  # by task; None: no target, or not finite


def decimal(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.4f}"


def baseline_of(task: str) -> str:
    """The name of a task's baseline."""
    return "popularity" if task.endswith("_watch") else "mean rating"


@dataclass(frozen=True)
class Started:
    """Yielded before the first step."""

    run: Path
    device: str
    num_parameters: int
    step: int  # steps done already
    num_steps: int
    steps_per_epoch: int
    window_len: int
    batch_windows: int  # windows in a global batch, from the rounded --batch-tokens
    micro_batch_windows: int
    world_size: int
    baselines: Losses  # loss of popularity and of the mean rating on validation
    validation_users: dict[str, int]  # task → users with a target

    def __str__(self) -> str:
        tokens = self.batch_windows * self.window_len
        micro = self.micro_batch_windows * self.window_len
        return (
            f"{self.run}: {self.num_parameters:,} parameters on {self.device}"
            + (f", {self.world_size} ranks" if self.world_size > 1 else "")
            + f"; batches of {self.batch_windows:,} windows × {self.window_len:,} = {tokens:,} tokens"
            + (f" in passes of {micro:,}" if micro < tokens // self.world_size else "")
            + f"; {self.num_steps:,} steps, {self.steps_per_epoch:,} an epoch"
        )


class Carried(Frozen):
    """Yielded before the first step of a run that starts with the weights of another."""

    run: str  # that other run
    step: int  # of its checkpoint
    media: tuple[MediumCounts, ...]
    figures: Figures | None  # its validation of these weights, on its own dataset; None: it had none
    may_know_users: bool  # whether it may have learned from users that are for validation now

    def __str__(self) -> str:
        items = "; ".join(
            f"{of.medium}: {of.carried:,} items carried, {of.new:,} new, {of.dropped:,} dropped" for of in self.media
        )
        figures = ""
        if self.figures is not None:
            losses = ", ".join(f"{task} {decimal(loss)}" for task, loss in self.figures.losses.items())
            figures = f"; its own validation: loss {decimal(self.figures.loss)}: {losses}"
        known = ""
        if self.may_know_users:
            known = (
                "; --split users drew other users for validation, and these weights may have learned from them: the "
                "first validations may be too good"
            )
        return f"starting with the weights of {self.run} after step {self.step:,}; {items}{figures}{known}"


@dataclass(frozen=True)
class Stepped:
    """One optimizer update."""

    step: int  # steps done
    loss: float | None
    losses: Losses
    learning_rate: float
    tokens_per_s: float
    wait_share: float  # share of the time in which the host waited for data, even if the device was busy
    ahead: int | None  # live training: written shards after those in use

    def __str__(self) -> str:
        ahead = "" if self.ahead is None else f" +{self.ahead} shards"
        return f"loss {decimal(self.loss)} {self.tokens_per_s:,.0f} tokens/s waiting {self.wait_share:.0%}{ahead}"


@dataclass(frozen=True)
class Validated:
    """One pass over the validation split."""

    figures: Figures
    baselines: Losses  # on the same split
    is_best: bool

    def __str__(self) -> str:
        """Each task's loss next to the loss of its baseline."""
        tasks = ", ".join(
            f"{task} {decimal(loss)} ({baseline_of(task)} {decimal(self.baselines.get(task))})"
            for task, loss in self.figures.losses.items()
        )
        best = ", the best so far" if self.is_best else ""
        gains = "".join(
            f"; scored as a mixture, {medium} gains {of.told.gain:.4f} nats (time hidden: {of.hidden.gain:.4f})"
            for medium, of in self.figures.mixtures.items()
            if of.told.gain or of.hidden.gain
        )
        return f"step {self.figures.step:,}: validation loss {decimal(self.figures.loss)}{best}: {tasks}{gains}"


@dataclass(frozen=True)
class Saved:
    """A checkpoint was saved."""

    step: int
    path: Path


@dataclass(frozen=True)
class Stopped:
    """The run was stopped before its end. Its steps are saved."""

    step: int


@dataclass(frozen=True)
class Finished:
    """The run has done all of its steps, or ended because validation no longer improved."""

    step: int
    last: Figures | None  # the last validation; None if the split has no windows
    best: Figures | None  # the validation with the lowest monitored figure
    best_checkpoint: Path | None
    reason: str  # why it ended


TrainingReport = Note | Progress | Carried | Started | Stepped | Validated | Saved | Stopped | Finished
