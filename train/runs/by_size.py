"""Options that follow the size of the data, unless they are given: epochs, patience, learning rate."""

import math
from collections.abc import Mapping
from typing import Any

from streamfeat.store.manifest import Manifest
from streamfeat.stream.order import steps_per_epoch
from train.config import new_config

# The epochs that a run of up to a million training tokens may take; ten times the tokens take a third of them. On
# MovieLens-1M validation still fell after 15. Small sets need steps rather than epochs: on MovieLens-100K, with 25
# steps an epoch, the watch loss fell by .002 from step 500 to 600 (docs/quality.md).
_TOKENS, _EPOCHS, _MOST_EPOCHS = 1_000_000, 15, 64
_LEAST_STEPS = 500

# The masked objective learns from a tenth of the targets in an epoch, so it gets more of them, and more patience. On
# MovieLens-100K its best validation came after 90 epochs.
_EPOCHS_OF_MASKED, _PATIENCE_OF_MASKED = 5, 2

# Validations without a new best that end a run, by the steps of an epoch: epochs of few steps are noisy.
_PATIENCE = ((500, 5), (5000, 3), (math.inf, 2))

# The presets' rates were measured on runs of up to this many steps. A longer one gets a lower rate: with averaged
# weights the best constant rate falls with the square root of the steps (Polyak and Juditsky, "Acceleration of
# stochastic approximation by averaging", 1992).
_STEPS_OF_RATE = 10_000


def by_size(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for those of `epochs`, `patience` and `learning_rate` that are not `given`. Raises ConfigError for wrong
    options."""
    config = new_config(given)
    training = manifest.splits["training"]
    epoch = max(1, steps_per_epoch(training.windows, config.batch_windows(manifest.data_schema.window_len)))
    epochs = round(_EPOCHS * min(1, math.sqrt(_TOKENS / max(training.tokens, 1))))
    epochs = min(max(epochs, math.ceil(_LEAST_STEPS / epoch)), _MOST_EPOCHS)
    masked = config.objective == "masked"
    found: dict[str, Any] = {
        "epochs": epochs * (_EPOCHS_OF_MASKED if masked else 1),
        "patience": next(n for most, n in _PATIENCE if epoch < most) * (_PATIENCE_OF_MASKED if masked else 1),
    }
    steps = config.steps or given.get("epochs", found["epochs"]) * epoch
    found["learning_rate"] = float(f"{config.learning_rate * min(1, math.sqrt(_STEPS_OF_RATE / steps)):.3g}")
    if config.steps:
        del found["epochs"]
    return {name: value for name, value in found.items() if name not in given}


def said(manifest: Manifest, chosen: Mapping[str, Any]) -> str:
    """The line that tells the user what was chosen and why."""
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())
    return f"chosen by the data's size ({manifest.splits['training'].tokens:,} training tokens): {options}"
