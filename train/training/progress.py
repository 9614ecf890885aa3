"""What a training run tells while it goes on. The library yields these and prints nothing."""

from dataclasses import dataclass
from pathlib import Path

from streamfeat.progress import Note
from train.runs.standing import Figures

Losses = dict[str, float | None]  # by task; None: no target, or not finite


@dataclass(frozen=True)
class Started:
    """Before the first step."""

    run: Path
    device: str
    num_parameters: int
    step: int  # steps done already
    num_steps: int
    steps_per_epoch: int
    window_len: int
    batch_windows: int  # of a global batch, what --batch-tokens was rounded to
    micro_batch_windows: int
    world_size: int
    baselines: Losses  # loss of popularity and of the mean rating on validation
    validation_users: dict[str, int]  # users that have a target, by task


@dataclass(frozen=True)
class Stepped:
    """One optimizer update."""

    step: int  # steps done
    loss: float | None
    losses: Losses
    learning_rate: float
    tokens_per_s: float
    wait_share: float  # share of the time that the host waited for data, also while the device was busy
    ahead: int | None  # live: shards that are written beyond those in use


@dataclass(frozen=True)
class Waiting:
    """Live: the next batch is not written yet."""

    seconds: float
    what: str  # the shard that is missing


@dataclass(frozen=True)
class Validated:
    """One pass over the validation split."""

    figures: Figures
    is_best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint."""

    step: int
    path: Path


@dataclass(frozen=True)
class Stopped:
    """The end of a run that was asked to stop before its end; what it did is saved."""

    step: int


@dataclass(frozen=True)
class Finished:
    """The end of a run that made all of its steps, or whose validation no longer fell."""

    step: int
    last: Figures | None  # the last validation; None where the split has no window
    best: Figures | None  # the one whose monitored figure was lowest
    best_checkpoint: Path | None


TrainingReport = Note | Started | Stepped | Waiting | Validated | Saved | Stopped | Finished
