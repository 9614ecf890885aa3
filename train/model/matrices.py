"""The matrices of a model, which decay, and which Muon turns."""

from torch import Tensor, nn


def linear_weights(model: nn.Module) -> list[Tensor]:
    """The weights of all linear layers, in the order of the modules."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
