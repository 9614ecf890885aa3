"""The trainer: batches in, a model out. `import train` is light: torch loads when it is first needed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.checkpoint import read_checkpoint
    from train.config import ModelConfig, TrainConfig
    from train.loop import train
    from train.metrics import read_metrics
    from train.model import EventTransformer

__all__ = ["EventTransformer", "ModelConfig", "TrainConfig", "read_checkpoint", "read_metrics", "train"]

_HOMES = {
    "EventTransformer": "train.model",
    "ModelConfig": "train.config",
    "TrainConfig": "train.config",
    "read_checkpoint": "train.checkpoint",
    "read_metrics": "train.metrics",
    "train": "train.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
