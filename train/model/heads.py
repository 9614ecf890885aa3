"""The two heads: one predicts an item of a medium, the other the rating of a given item.

Axes: N targets, D width, V items of the medium.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfeat.schema import Schema
from streamfeat.store.manifest import MediumScales
from train.model.inputs import TokenInputs
from train.model.loss import WatchLogits, watch_logits, watch_loss_sum, watch_losses
from train.model.popularity import PopularityRows, PopularityTerm, TermOfTargets
from train.model.targets import Targets

Features = tuple[Tensor, ...]  # of popularity, by medium: (F, R, V) each; empty if the model has no such term


class WatchHead(nn.Module):
    """A softmax over the items of a medium. It shares the inputs' item table. Its bias starts at log popularity.

    With `knows_popularity`, a term says what is popular at the target's time (`train/model/popularity.py`).
    """

    def __init__(self, schema: Schema, item_targets: NDArray[np.int64], width: int, *, knows_popularity: bool) -> None:
        super().__init__()
        self.medium_offsets = schema.medium_offsets
        self.popularity = PopularityTerm(schema, width) if knows_popularity else None
        self.bias_V = nn.Parameter(_centred_log_counts(item_targets, schema.medium_offsets))

    def loss_sum(
        self, state_ND: Tensor, inputs: TokenInputs, medium: int, targets: Targets, features: Features
    ) -> Tensor:
        """() float32: Σ weight · nats."""
        of = self._logits_of(state_ND, inputs, medium, targets.popularity, features)
        return watch_loss_sum(of, targets.item_N, targets.weight_N, targets.seen)

    def losses(
        self, state_ND: Tensor, inputs: TokenInputs, medium: int, targets: Targets, features: Features
    ) -> Tensor:
        """(N,) float32: nats, without gradients."""
        of = self._logits_of(state_ND, inputs, medium, targets.popularity, features)
        return watch_losses(of, targets.item_N, targets.seen)

    def logits(
        self, state_ND: Tensor, inputs: TokenInputs, medium: int, rows: PopularityRows | None, features: Features
    ) -> Tensor:
        """(N, V) float32: the softmax's inputs for all items of the medium, seen ones included."""
        return watch_logits(self._logits_of(state_ND, inputs, medium, rows, features))

    def _logits_of(
        self, state_ND: Tensor, inputs: TokenInputs, medium: int, rows: PopularityRows | None, features: Features
    ) -> WatchLogits:
        low, high = self.medium_offsets[medium : medium + 2]
        table, bias = inputs.item.weight[low:high], self.bias_V[low:high]
        if self.popularity is None or rows is None:
            return WatchLogits(state_ND, table, bias)
        coefficients = self.popularity(state_ND, medium, rows)
        return WatchLogits(state_ND, table, bias, TermOfTargets(coefficients, rows.row_N, features[medium], rows.row))


class RatingHead(nn.Module):
    """Predicts the rating that a user gives an item, from the state and the item's embedding.

    It learns the deviation from the medium's mean, in units of the medium's standard deviation. No gradient leaves the
    head: ratings that shape states and embeddings cost ranking more than they gain (docs/design.md).
    """

    def __init__(self, schema: Schema, scales: Sequence[MediumScales], width: int) -> None:
        super().__init__()
        self.medium_offsets = schema.medium_offsets
        self.means = [scale.rating_mean for scale in scales]
        self.stds = [scale.rating_variance**0.5 or 1.0 for scale in scales]
        self.hidden = nn.Linear(2 * width, 2 * width, bias=False)
        self.out = nn.Linear(width, 1, bias=False)
        self.bias_V = nn.Parameter(torch.zeros(schema.num_items))

    def forward(self, state_ND: Tensor, inputs: TokenInputs, medium: int, item_N: Tensor) -> Tensor:
        """(N,) float32: predicted ratings of the items `item_N`, given as ids inside the medium."""
        item_N = item_N + self.medium_offsets[medium]
        known = torch.cat((state_ND, inputs.embed_items(item_N)), -1).detach()
        gate, value = self.hidden(known).chunk(2, -1)
        deviation: Tensor = self.out(nn.functional.silu(gate) * value)[:, 0].float() + self.bias_V[item_N]
        return self.means[medium] + self.stds[medium] * deviation

    def losses(self, state_ND: Tensor, inputs: TokenInputs, medium: int, targets: Targets) -> Tensor:
        """(N,) float32: squared errors."""
        predicted_N: Tensor = self(state_ND, inputs, medium, targets.item_N)
        return (predicted_N - targets.rating_N).square()


def _centred_log_counts(item_targets: NDArray[np.int64], medium_offsets: tuple[int, ...]) -> Tensor:
    """(V,) float32: log(training targets + 0.5) of each item, minus the mean over its medium."""
    logs = np.log(item_targets + 0.5)
    for low, high in itertools.pairwise(medium_offsets):
        logs[low:high] -= logs[low:high].mean()
    return torch.from_numpy(logs.astype(np.float32))
