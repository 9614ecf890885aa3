"""The trainer: batches in, a model out. `import train` is light: torch loads when it is first needed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.config import ModelConfig, TrainConfig
    from train.dataset import WindowDataset
    from train.evaluation import evaluate
    from train.inference import recommend
    from train.inference.every_user import recommend_all
    from train.inference.scorer import Scorer
    from train.model.transformer import EventTransformer
    from train.runs.checkpoint import read_checkpoint
    from train.runs.metrics import read_metrics
    from train.training.loop import train

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
    "EventTransformer": "train.model.transformer",
    "ModelConfig": "train.config",
    "Scorer": "train.inference.scorer",
    "TrainConfig": "train.config",
    "WindowDataset": "train.dataset",
    "read_checkpoint": "train.runs.checkpoint",
    "read_metrics": "train.runs.metrics",
    "recommend_all": "train.inference.every_user",
    "train": "train.training.loop",
}
_MODULES = {
    "evaluate": "train.evaluation.evaluate",
    "recommend": "train.inference.recommend",
}  # recipes of the same name as their module: train.inference.recommend.recommend(…)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
