"""AdamW, the learning rate of each step, and the clipping of gradients."""

import math

import torch
from torch import Tensor, nn

from train.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay only for the matrices of linear layers, not for embeddings, norms and biases.

    The type of the module that owns a parameter decides, not the parameter's name: wrappers add a prefix to names.
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
    """The learning rate of update `step` (from 0) of `num_steps`.

    A linear warm-up, then the peak. Over the last `decay_share` of the steps (but not during the warm-up) the rate
    falls along half a cosine to the share `final_learning_rate` of the peak.
    """
    warm_up = min(config.warm_up_steps, num_steps // 10)
    if step < warm_up:
        return config.learning_rate * (step + 1) / (warm_up + 1)
    decay = max(min(round(config.decay_share * num_steps), num_steps - warm_up), 1)
    first = num_steps - decay
    progress = (step - first) / max(1, decay - 1)
    cosine = (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2 if config.decay_share else 1.0
    return config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all groups for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """Scales gradients down to a global norm of at most `largest`. Returns the norm before, () float32, on the device,
    so that the host does not wait. If the norm is not finite, no gradient is: check it before the update."""
    return nn.utils.clip_grad_norm_(model.parameters(), largest)
