"""The trainer: batches in, a model out. `import train` is light: torch loads when it is first needed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train import evaluate, recommend
    from train.checkpoint import read_checkpoint
    from train.config import ModelConfig, TrainConfig
    from train.dataset import WindowDataset
    from train.every_user import recommend_all
    from train.loop import train
    from train.metrics import read_metrics
    from train.model import EventTransformer
    from train.scoring import Scorer

__all__ = [
    "EventTransformer",
    "ModelConfig",
    "Scorer",
    "TrainConfig",
    "WindowDataset",
    "evaluate",
    "read_checkpoint",
    "read_metrics",
    "recommend",
    "recommend_all",
    "train",
]

_HOMES = {
    "EventTransformer": "train.model",
    "ModelConfig": "train.config",
    "Scorer": "train.scoring",
    "TrainConfig": "train.config",
    "WindowDataset": "train.dataset",
    "read_checkpoint": "train.checkpoint",
    "read_metrics": "train.metrics",
    "recommend_all": "train.every_user",
    "train": "train.loop",
}
_MODULES = ("evaluate", "recommend")  # recipes of the same name as their module: train.recommend.recommend(…)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"train.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
