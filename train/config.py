"""What a training run is asked to do: the model, the optimizer, how long, and on which batches."""

import functools
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from streamfeat.config import MOST_WORKERS, MaskPolicy, Objective
from streamfeat.errors import ConfigError
from streamfeat.records import Frozen, unknown_key, validated

Preset = Literal["tiny", "small", "base"]

# `tiny` is the recipe that was measured on MovieLens (docs/design.md); the larger ones lower rate and dropout, as is
# usual for wider models, and have not been tuned.
PRESETS: dict[Preset, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 64, "heads": 2, "dropout": 0.3, "learning_rate": 2e-3},
    "small": {"layers": 4, "width": 256, "heads": 4, "dropout": 0.2, "learning_rate": 1e-3},
    "base": {"layers": 8, "width": 768, "heads": 12, "dropout": 0.1, "learning_rate": 3e-4},
}


@functools.cache
def divisors(number: int) -> tuple[int, ...]:
    """Of a number of at least 1, ascending."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return tuple(sorted({*low, *(number // n for n in low)}))


class ModelConfig(Frozen):
    """The transformer's shape."""

    layers: int = Field(default=2, ge=1, le=1024)
    width: int = Field(default=64, ge=8, le=2**16)  # of the residual stream
    heads: int = Field(default=2, ge=1)
    feed_forward: float = Field(default=2.0, gt=0, le=64)  # hidden width of SwiGLU, as a multiple of `width`
    dropout: float = Field(default=0.3, ge=0, le=0.95)  # in steps of 1/256 on the CPU

    @model_validator(mode="after")
    def _agree(self) -> "ModelConfig":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(value: Any) -> Any:
    """`"20GB"` as a number of bytes, units being powers of 1000; what is no text passes as it is."""
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


NumBytes = Annotated[int, BeforeValidator(parse_bytes)]
NumWorkers = Annotated[int | Literal["auto"], BeforeValidator(parse_workers)]


class TrainConfig(Frozen):
    """Everything that decides a run's numbers, and what does not (see `FREE_ON_RESUME`)."""

    objective: Objective = "causal"
    mask_policy: MaskPolicy = "disjoint"  # masked objective only
    preset: Preset = "tiny"
    model: ModelConfig = ModelConfig()
    batch_tokens: int = Field(default=4096, ge=1, le=2**40)  # tokens of a global batch, over all ranks
    micro_batch_tokens: int = Field(default=0, ge=0, le=2**40)  # tokens of one forward pass; 0: a rank's whole share
    steps: int = Field(default=0, ge=0, le=2**48)  # optimizer updates; 0: as `epochs` says
    epochs: int = Field(default=64, ge=1, le=2**31)  # at most: see `patience`
    learning_rate: float = Field(default=2e-3, gt=0)
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.98, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)  # largest global gradient norm
    warm_up_steps: int = Field(default=60, ge=0)  # rising rate; never more than a tenth of all steps
    decay_share: float = Field(default=0.3, ge=0, le=1)  # of the steps, at the end, over which the rate falls
    final_learning_rate: float = Field(default=0.02, ge=0, le=1)  # share of the peak that it falls to
    validate_every: int = Field(default=0, ge=0)  # steps; 0: every epoch; the last step is always validated
    checkpoint_every: int = Field(default=500, ge=1)  # steps; the best and the last step are always saved
    keep: int = Field(default=2, ge=1)  # last checkpoints that are kept, beside the best
    monitor: str = "loss"  # which validation figure is to fall: loss, or a task such as anime_watch
    patience: int = Field(default=5, ge=0)  # validations without a new best before the run ends; 0: no end
    seed: int = Field(default=0, ge=0, lt=2**63)  # order, masks, initial weights, dropout
    threads: int = Field(default=1, ge=1, le=1024)  # reader threads of each rank
    live: bool = False  # read packings while they are written, epoch e packing e
    live_disk: NumBytes = Field(default=20 * 10**9, ge=1)  # bytes that they may take
    live_workers: NumWorkers = "auto"  # producers that the run starts; auto: cores - 1; 0: they run apart
    live_timeout: float = Field(default=600, ge=1)  # seconds without a sign of life before a run counts as dead

    def batch_windows(self, window_len: int) -> int:
        """Windows of a global batch: `batch_tokens` over `window_len`, rounded to the nearest, at least one."""
        return max(1, round(self.batch_tokens / window_len))

    def micro_batch_windows(self, window_len: int, world_size: int = 1) -> int:
        """Windows of one forward pass: the largest divisor of a rank's share that `micro_batch_tokens` allows.

        A divisor, so that every pass has one shape: on CUDA another one would be compiled anew.
        """
        share = self.batch_windows(window_len) // world_size
        most = max(1, round(self.micro_batch_tokens / window_len)) if self.micro_batch_tokens else share
        return max(n for n in divisors(share) if n <= most)

    def num_producers(self) -> int:
        """Producers that a live run starts itself."""
        if self.live_workers == "auto":
            return max(1, len(os.sched_getaffinity(0)) - 1)
        return self.live_workers


# Fields of a TrainConfig that may differ when a run is resumed: they change no batch, and no number but by rounding
# (on CUDA, where dropout is drawn per pass, micro-batches change its masks too).
FREE_ON_RESUME = (
    "micro_batch_tokens", "checkpoint_every", "keep", "patience", "threads", "live_disk", "live_workers", "live_timeout"
)  # fmt: skip

FIELDS = (TrainConfig.model_fields.keys() | ModelConfig.model_fields.keys()) - {"model"}


_MOST_BYTES = 2**20  # of a configuration file


def read_config(path: Path) -> dict[str, Any]:
    """The options that a TOML file gives, by name: fields of `TrainConfig` and, plain or below `[model]`, of
    `ModelConfig`. Raises ConfigError for a file that cannot be read, an unknown key, a value out of range."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{path}: is longer than {_MOST_BYTES:,} bytes; that is no configuration")
        values = tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number or nesting beyond what Python reads
        raise ConfigError(f"{path}: is no TOML ({error})") from None
    model = values.pop("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"{path}: model: is a table, [model], of {', '.join(ModelConfig.model_fields)}")
    for key in model.keys() - ModelConfig.model_fields.keys():
        raise ConfigError(unknown_key(str(path), f"model.{key}", key, ModelConfig.model_fields))
    for key in values.keys() - FIELDS:
        if key in _OF_THE_COMMAND:
            raise ConfigError(f"{path}: {key!r} says what to do this once, so it is typed: --{key.replace('_', '-')}")
        raise ConfigError(unknown_key(str(path), key, key, FIELDS))
    if twice := values.keys() & model.keys():
        raise ConfigError(f"{path}: {min(twice)}: is given twice, plain and below [model]; keep one")
    values |= model
    config = new_config(values, where=str(path), strict=True)
    found = {**config.model_dump(), **config.model.model_dump()}
    return {name: found[name] for name in values}


_OF_THE_COMMAND = ("run", "resume", "overwrite", "force", "dry_run", "tensorboard", "json", "config")


def new_config(given: Mapping[str, Any], where: str = "train", *, strict: bool = False) -> TrainConfig:
    """The configuration of a new run: the preset's, then what was `given`. Raises ConfigError.

    `strict`: no text or truth value in place of a number.
    """
    preset = given.get("preset", TrainConfig.model_fields["preset"].default)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"{where}: preset {preset!r}: is none of {', '.join(PRESETS)}")
    if given.get("steps") and "epochs" in given:
        raise ConfigError(f"{where}: steps {given['steps']} and epochs {given['epochs']} contradict: give one of them")
    values = {**PRESETS[preset], **given}
    model = {name: values.pop(name) for name in ModelConfig.model_fields if name in values}
    return validated(TrainConfig, {**values, "model": model}, where, strict=strict)


def overridden(given: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, as a file gives it, with the options `by`: they win, also where steps and epochs exclude each other."""
    excluded = {"steps": "epochs", "epochs": "steps"}
    dropped = {other for name, other in excluded.items() if by.get(name)}
    return {**{name: value for name, value in given.items() if name not in dropped}, **by}
