"""The optimizer, and the clipping of gradients."""

import torch
from torch import Tensor, nn

from train.config import TrainConfig
from train.model.heads import FactorTable
from train.model.matrices import linear_weights
from train.training.muon import Muon

_MOST_SHRINKING = 0.04  # of the factors of ratings in one step: few ratings, or a high rate, must not turn their sign


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW, or Muon, with weight decay only for the matrices of linear layers and, with a decay of their own, for the
    factors of ratings; not for embeddings, norms and biases.

    The type of the module that owns a parameter decides, not the parameter's name: wrappers add a prefix to names.
    """
    matrices = linear_weights(model)
    factors = [module for module in model.modules() if isinstance(module, FactorTable)]
    decayed = {id(parameter) for parameter in [*matrices, *(table.weight for table in factors)]}
    others = [parameter for parameter in model.parameters() if id(parameter) not in decayed]
    most = _MOST_SHRINKING / config.learning_rate
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
        *({"params": [table.weight], "weight_decay": min(table.decay, most)} for table in factors),
    ]
    betas = (config.beta_1, config.beta_2)
    fused = matrices[0].device.type in ("cpu", "cuda")
    if config.optimizer == "muon":
        groups = [{**group, "orthogonal": group["params"] is matrices} for group in groups]
        return Muon(groups, lr=config.learning_rate, betas=betas, fused=fused)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all groups for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: nn.Module, apart: nn.Module | None, largest: float) -> Tensor:
    """Scales gradients down to a global norm of at most `largest`. The part `apart` of the model has a norm of its own,
    so that neither part changes the gradients of the other.

    Returns the norm of both before, () float32, on the device, so that the host does not wait. If it is not finite, the
    gradients of a part are not: check it before the update.
    """
    parts = list(apart.parameters()) if apart is not None else []
    ids = {id(parameter) for parameter in parts}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    norms = [nn.utils.clip_grad_norm_(parameters, largest) for parameters in (rest, parts) if parameters]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
