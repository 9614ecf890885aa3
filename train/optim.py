"""AdamW with groups by module type, the learning rate of each step, and clipping."""

import math

import torch
from torch import Tensor, nn

from train.config import TrainConfig

_MOST_WARM_UP = 60  # steps


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays the matrices of linear layers only: never embeddings, norms, biases.

    Groups go by the type of the module that owns a parameter; a name changes when a wrapper adds a prefix.
    """
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    decayed = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in decayed]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    betas = (config.beta_1, config.beta_2)
    fused = matrices[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=fused)


def learning_rate(config: TrainConfig, step: int, num_steps: int) -> float:
    """The rate of update `step` (from 0) of `num_steps`: linear warm-up, then a cosine down to a share of the peak."""
    warm_up = min(_MOST_WARM_UP, num_steps // 10)
    if step < warm_up:
        return config.learning_rate * (step + 1) / (warm_up + 1)
    progress = (step - warm_up) / max(1, num_steps - 1 - warm_up)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of every group's next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """Scales gradients down to a global norm of at most `largest`; returns the norm before, () float32, on the
    device, so that nothing waits. A norm that is not finite makes every gradient so: look at it before updating."""
    return nn.utils.clip_grad_norm_(model.parameters(), largest)
