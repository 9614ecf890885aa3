"""The trainer: trains, evaluates and uses models. `import train` is fast: torch is imported when it is first needed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.config import ModelConfig, TrainConfig
    from train.evaluation.evaluate import evaluate_steps
    from train.inference.every_user import recommend_all_steps
    from train.inference.recommend import recommend_steps
    from train.inference.refresh import refresh_steps
    from train.inference.scorer import Scorer
    from train.model.transformer import EventTransformer
    from train.runs.checkpoint import read_checkpoint
    from train.runs.metrics import read_metrics
    from train.training.loop import train_steps

_HOMES = {
    "EventTransformer": "train.model.transformer",
    "ModelConfig": "train.config",
    "Scorer": "train.inference.scorer",
    "TrainConfig": "train.config",
    "evaluate_steps": "train.evaluation.evaluate",
    "read_checkpoint": "train.runs.checkpoint",
    "read_metrics": "train.runs.metrics",
    "recommend_all_steps": "train.inference.every_user",
    "recommend_steps": "train.inference.recommend",
    "refresh_steps": "train.inference.refresh",
    "train_steps": "train.training.loop",
}

__all__ = [
    "EventTransformer",
    "ModelConfig",
    "Scorer",
    "TrainConfig",
    "evaluate_steps",
    "read_checkpoint",
    "read_metrics",
    "recommend_all_steps",
    "recommend_steps",
    "refresh_steps",
    "train_steps",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
