"""What a training run is asked to do: the model, the optimizer, and how long."""

from typing import Any, Literal

from pydantic import Field, model_validator

from streamfeat.config import MaskPolicy, Objective
from streamfeat.records import Frozen

Preset = Literal["tiny", "small", "base"]

# `tiny` is the recipe that was measured on MovieLens (docs/design.md); the larger ones lower rate and dropout, as is
# usual for wider models, and have not been tuned.
PRESETS: dict[Preset, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 64, "heads": 2, "dropout": 0.3, "learning_rate": 2e-3},
    "small": {"layers": 4, "width": 256, "heads": 4, "dropout": 0.2, "learning_rate": 1e-3},
    "base": {"layers": 8, "width": 768, "heads": 12, "dropout": 0.1, "learning_rate": 3e-4},
}


class ModelConfig(Frozen):
    """The transformer's shape."""

    layers: int = Field(default=2, ge=1)
    width: int = Field(default=64, ge=8)  # of the residual stream
    heads: int = Field(default=2, ge=1)
    feed_forward: float = Field(default=2.0, gt=0)  # hidden width of SwiGLU, as a multiple of `width`
    dropout: float = Field(default=0.3, ge=0, le=0.95)  # in steps of 1/256 on the CPU

    @model_validator(mode="after")
    def _agree(self) -> "ModelConfig":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class TrainConfig(Frozen):
    """Everything that decides a run's numbers, and a few switches that do not (see `FREE_ON_RESUME`)."""

    objective: Objective = "causal"
    mask_policy: MaskPolicy = "disjoint"  # masked objective only
    preset: Preset = "tiny"
    model: ModelConfig = ModelConfig()
    batch_tokens: int = Field(default=4096, ge=1)  # tokens of a global batch
    micro_batch_tokens: int = Field(default=0, ge=0)  # tokens of one forward pass; 0: a rank's whole share
    steps: int = Field(default=0, ge=0)  # optimizer updates; 0: as `epochs` says
    epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.98, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)  # largest global gradient norm
    final_learning_rate: float = Field(default=0.02, ge=0, le=1)  # share of the peak that the cosine ends at
    validate_every: int = Field(default=100, ge=1)  # steps; the last step is always validated
    checkpoint_every: int = Field(default=100, ge=1)  # steps; the last step is always saved
    seed: int = Field(default=0, ge=0, lt=2**63)  # order, masks, initial weights, dropout
    threads: int = Field(default=1, ge=1)  # reader threads

    def batch_windows(self, window_len: int) -> int:
        """Windows of a global batch: `batch_tokens` over `window_len`, rounded to the nearest, at least one."""
        return max(1, round(self.batch_tokens / window_len))

    def micro_batch_windows(self, window_len: int) -> int:
        """Windows of one forward pass: the largest divisor of the batch that `micro_batch_tokens` allows.

        A divisor, so that every pass has one shape: on CUDA another one would be compiled anew.
        """
        whole = self.batch_windows(window_len)
        most = max(1, round(self.micro_batch_tokens / window_len)) if self.micro_batch_tokens else whole
        return next(n for n in range(min(most, whole), 0, -1) if whole % n == 0)


# Fields of a TrainConfig that may differ when a run is resumed: they change no batch, and no number but by rounding
# (on CUDA, where dropout is drawn per pass, micro-batches change its masks too).
FREE_ON_RESUME = ("micro_batch_tokens", "checkpoint_every", "threads")
