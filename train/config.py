"""The configuration of a training run: the model, the optimizer, the length, the batches."""

import functools
import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from streamfeat.config import MOST_WORKERS, MaskPolicy, Objective, Option
from streamfeat.errors import ConfigError
from streamfeat.records import Frozen, validated

Preset = Literal["tiny", "small", "base"]
Optimizer = Literal["adamw", "muon"]

# `tiny` was measured on MovieLens (docs/design.md). The larger ones have a lower rate and dropout, as is usual for
# wider models, and were not tuned.
PRESETS: dict[Preset, dict[str, Any]] = {
    "tiny": {"layers": 3, "width": 64, "heads": 2, "dropout": 0.2, "learning_rate": 4e-3, "optimizer": "muon"},
    "small": {"layers": 4, "width": 256, "heads": 4, "dropout": 0.2, "learning_rate": 1e-3, "optimizer": "adamw"},
    "base": {"layers": 8, "width": 768, "heads": 12, "dropout": 0.1, "learning_rate": 3e-4, "optimizer": "adamw"},
}


@functools.cache
def divisors(number: int) -> tuple[int, ...]:
    """The divisors of `number`, ascending. `number` must be at least 1."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return tuple(sorted({*low, *(number // n for n in low)}))


_MODEL, _OPTIMISATION, _LENGTH, _DATA, _LIVE = map(
    Option, ("Model", "Optimisation", "Length of the run", "Data", "Live training")
)
_OF_PRESET = Option(default="the preset's")
_BY_SIZE = Option(default="by the data's size")


class ModelConfig(Frozen):
    """The transformer's shape."""

    layers: Annotated[int, _MODEL, _OF_PRESET] = Field(default=2, ge=1, le=1024, description="Blocks.")
    width: Annotated[int, _MODEL, _OF_PRESET] = Field(
        default=64, ge=8, le=2**16, description="Values of the residual stream."
    )
    heads: Annotated[int, _MODEL, _OF_PRESET] = Field(default=2, ge=1, description="Attention heads.")
    feed_forward: Annotated[float, _MODEL] = Field(
        default=2.0, gt=0, le=64, description="Hidden width of SwiGLU, as a multiple of the width."
    )
    dropout: Annotated[float, _MODEL, _OF_PRESET] = Field(
        default=0.2, ge=0, le=0.95, description="Share of values dropped, in steps of 1/256 on the CPU."
    )

    @model_validator(mode="after")
    def _agree(self) -> "ModelConfig":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(value: Any) -> Any:
    """`"20GB"` as a number of bytes, where GB is 1000 MB; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    number, unit = value[:-2].strip(), value[-2:].upper()
    try:
        return round(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ValueError(f"write a size as a number and {', '.join(_UNITS)}, for instance 20GB") from None


def parse_workers(value: Any) -> Any:
    """A number of processes, or `auto`."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_WORKERS):
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) < 9 and int(value) <= MOST_WORKERS:
        return int(value)
    raise ValueError(f"give a number of processes, 0 to {MOST_WORKERS:,}, or auto")


NumBytes = Annotated[int, BeforeValidator(parse_bytes), Option(metavar="SIZE")]
NumWorkers = Annotated[int | Literal["auto"], BeforeValidator(parse_workers)]


class TrainConfig(Frozen):
    """All options of a run: those that decide its numbers, and those that do not (see `FREE_ON_RESUME`)."""

    preset: Annotated[Preset, _MODEL] = Field(
        default="tiny", description="Size of the model and its recipe; every part can be overridden."
    )
    objective: Annotated[Objective, _MODEL] = Field(
        default="causal", description="Predict the next event, or masked ones."
    )
    mask_policy: Annotated[MaskPolicy, _MODEL] = Field(
        default="disjoint", description="How the masked objective masks."
    )
    model: ModelConfig = ModelConfig()
    optimizer: Annotated[Optimizer, _OPTIMISATION, _OF_PRESET] = Field(
        default="adamw", description="AdamW for all parameters, or Muon for matrices and AdamW for the others."
    )
    learning_rate: Annotated[float, _OPTIMISATION, Option(default="the preset's, lower for long runs")] = Field(
        default=4e-3, gt=0, description="Learning rate at its peak."
    )
    batch_tokens: Annotated[int, _OPTIMISATION] = Field(
        default=4096, ge=1, le=2**40, description="Tokens of a global batch, over all ranks, rounded to windows."
    )
    micro_batch_tokens: Annotated[int, _OPTIMISATION] = Field(
        default=0, ge=0, le=2**40, description="Tokens of one forward pass; 0: a rank's whole share."
    )
    warm_up_steps: Annotated[int, _OPTIMISATION] = Field(
        default=60, ge=0, description="Steps over which the rate rises, at most a tenth of all and three epochs."
    )
    decay_share: Annotated[float, _OPTIMISATION] = Field(
        default=0.0, ge=0, le=1, description="Share of the steps, at the end, over which the rate falls."
    )
    final_learning_rate: Annotated[float, _OPTIMISATION] = Field(
        default=0.02, ge=0, le=1, description="Share of the peak that the rate falls to."
    )
    weight_decay: Annotated[float, _OPTIMISATION] = Field(
        default=0.01, ge=0, description="Weight decay, of matrices only."
    )
    beta_1: Annotated[float, _OPTIMISATION] = Field(
        default=0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient."
    )
    beta_2: Annotated[float, _OPTIMISATION] = Field(
        default=0.98, ge=0, lt=1, description="AdamW: decay of the mean squared gradient."
    )
    clip: Annotated[float, _OPTIMISATION] = Field(
        default=1.0, gt=0, description="Largest norm of the gradient, of the rating head and of the rest apart."
    )
    ema: Annotated[float, _OPTIMISATION] = Field(
        default=0.998,
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of the weights, which is validated and used; 0: none.",
    )
    epochs: Annotated[int, _LENGTH, _BY_SIZE] = Field(
        default=64, ge=1, le=2**31, description="Passes over the training windows, at most: see --patience."
    )
    steps: Annotated[int, _LENGTH] = Field(
        default=0, ge=0, le=2**48, description="Optimizer updates; 0: as --epochs says."
    )
    patience: Annotated[int, _LENGTH, _BY_SIZE] = Field(
        default=5, ge=0, description="Validations without a new best before the run ends; 0: never."
    )
    monitor: Annotated[str, _LENGTH] = Field(
        default="watch", description="Validation figure that must fall: watch, loss, or a task such as anime_watch."
    )
    validate_every: Annotated[int, _LENGTH] = Field(
        default=0,
        ge=0,
        description="Steps between validations; 0: every epoch, at least 20. The last step is always validated.",
    )
    checkpoint_every: Annotated[int, _LENGTH] = Field(
        default=500, ge=1, description="Steps between checkpoints. The best and the last step are always saved."
    )
    keep: Annotated[int, _LENGTH] = Field(default=2, ge=1, description="Last checkpoints to keep, beside the best.")
    seed: Annotated[int, _DATA] = Field(
        default=0, ge=0, lt=2**63, description="Seed of order, masks, initial weights and dropout."
    )
    hidden_times: Annotated[float, _DATA] = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Causal: share of histories in which no token is told the time of the event that it predicts.",
    )
    threads: Annotated[int, _DATA] = Field(
        default=1, ge=1, le=1024, description="Threads of each rank that read and prepare data."
    )
    live: Annotated[bool, _LIVE] = Field(
        default=False, description="Train on windows while they are written: epoch e reads packing e."
    )
    live_disk: Annotated[NumBytes, _LIVE, Option(default="20GB")] = Field(
        default=20 * 10**9, ge=1, description="Bytes that live windows may take, such as 20GB; GB is 1000 MB."
    )
    live_workers: Annotated[NumWorkers, _LIVE] = Field(
        default="auto", description="Processes that write live windows; auto: cores - 1; 0: build-shards --live does."
    )
    live_timeout: Annotated[float, _LIVE] = Field(
        default=600, ge=1, description="Seconds without a sign of life after which a run or its writer counts as dead."
    )

    def batch_windows(self, window_len: int) -> int:
        """Windows of a global batch: `batch_tokens` divided by `window_len`, rounded, at least one."""
        return max(1, round(self.batch_tokens / window_len))

    def micro_batch_windows(self, window_len: int, world_size: int = 1) -> int:
        """Windows of one forward pass: the largest divisor of a rank's share that `micro_batch_tokens` allows.

        With a divisor every pass has the same shape. On CUDA a second shape would be compiled again.
        """
        share = self.batch_windows(window_len) // world_size
        most = max(1, round(self.micro_batch_tokens / window_len)) if self.micro_batch_tokens else share
        return max(n for n in divisors(share) if n <= most)

    def num_producers(self) -> int:
        """Number of producers that a live run starts itself."""
        if self.live_workers == "auto":
            return max(1, len(os.sched_getaffinity(0)) - 1)
        return self.live_workers


# Fields of a TrainConfig that may change when a run is resumed. They change no batch, and numbers only by rounding. An
# exception: on CUDA dropout is drawn for each pass, so micro-batches change its masks.
FREE_ON_RESUME = (
    "micro_batch_tokens",
    "checkpoint_every",
    "keep",
    "patience",
    "threads",
    "live_disk",
    "live_workers",
    "live_timeout",
)


def new_config(given: Mapping[str, Any], where: str = "train") -> TrainConfig:
    """The configuration of a new run: the `given` options, and the preset's for the others. Raises ConfigError."""
    preset = given.get("preset", TrainConfig.model_fields["preset"].default)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"{where}: preset {preset!r}: is not one of {', '.join(PRESETS)}")
    if given.get("steps") and "epochs" in given:
        raise ConfigError(f"{where}: steps {given['steps']} and epochs {given['epochs']} contradict: give one of them")
    values = {**PRESETS[preset], **given}
    model = {name: values.pop(name) for name in ModelConfig.model_fields if name in values}
    return validated(TrainConfig, {**values, "model": model}, where)


def overridden(given: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """The options `given` by a file, overridden by those of `by`. steps and epochs override each other, too."""
    excluded = {"steps": "epochs", "epochs": "steps"}
    dropped = {other for name, other in excluded.items() if by.get(name)}
    return {**{name: value for name, value in given.items() if name not in dropped}, **by}
