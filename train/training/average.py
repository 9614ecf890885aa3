"""The exponential moving average of the weights: what is validated, saved as the model, and asked."""

import copy

import torch

from train.model.transformer import EventTransformer


class WeightAverage:
    """A second model that follows the trained one, update by update.

    After update s (from 0) the decay is min(`decay`, (s + 1) / (s + 10)): with a constant one, a short run would end
    with an average that is mostly initial weights.
    """

    def __init__(self, model: EventTransformer, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def follow(self, trained: EventTransformer, step: int) -> None:
        """Take in the weights after update `step` (from 0)."""
        decay = min(self._decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(self.model.parameters()), list(trained.parameters()), 1 - decay)
