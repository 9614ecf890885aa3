"""The two heads: one predicts an item of a medium, the other the rating of a given item.

Axes: N targets, D width, V items of the medium,
B windows, T tokens, F factors, X numbers known of an item and a history.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfeat.kernels.residuals import ITEM_DAMPING, RatingTable
from streamfeat.schema import Schema
from streamfeat.store.manifest import MediumScales
from train.model.inputs import TokenInputs
from train.model.loss import WatchLogits, watch_logits, watch_loss_sum, watch_losses
from train.model.past_ratings import NUM_KNOWN, is_in_view
from train.model.popularity import PopularityRows, PopularityTerm, TermOfTargets
from train.model.targets import Past, Targets

NUM_FACTORS = 32

# The decay of factors is this divided by the number of ratings: like a prior, it counts for less the more ratings there
# are. Chosen on the validation of MovieLens-100K, where 3 to 5 were best, and of -1M, 0.4 to 0.8 (docs/design.md).
_DECAY_OF_ONE_RATING = 4e5

_START_OF_MEAN_RESIDUAL = 0.7

Features = tuple[Tensor, ...]  # of popularity, by medium: (F, R, V) each; empty if the model has no such term


class WatchHead(nn.Module):
    """A softmax over the items of a medium. It shares the inputs' item table. Its bias starts at log popularity.

    With `knows_popularity`, a term says what is popular at the target's time (`train/model/popularity.py`).
    """

    by_item = ("bias_V",)  # see carry.py

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


class FactorTable(nn.Embedding):
    """Factors of items, with a weight decay of their own."""

    by_item = ("weight",)  # see carry.py

    def __init__(self, num_items: int, decay: float) -> None:
        super().__init__(num_items, NUM_FACTORS)
        self.decay = decay


class RatingHead(nn.Module):
    """Predicts the rating that a user gives an item, beside the trunk.

    It learns the deviation from the medium's mean, in units of the medium's standard deviation: the item's bias, a
    weighted sum of the numbers known of item and history, the product of factors of item and history (asymmetric SVD:
    Koren, Factorization meets the neighborhood, 2008), and a gated layer on state, item and these numbers. No gradient
    leaves the head: ratings that shape states and embeddings cost ranking more than they gain (docs/design.md).
    """

    by_item = ("bias_V",)  # see carry.py

    def __init__(self, schema: Schema, scales: Sequence[MediumScales], ratings: RatingTable, width: int) -> None:
        super().__init__()
        self.medium_offsets = schema.medium_offsets
        self.status_mask = schema.status_tokens.mask
        self.means = [scale.rating_mean for scale in scales]
        self.stds = [scale.rating_std for scale in scales]
        decay = _DECAY_OF_ONE_RATING / max(1, sum(scale.ratings for scale in scales))
        self.hidden = nn.Linear(2 * width + NUM_KNOWN, 2 * width, bias=False)
        self.out = nn.Linear(width, 1, bias=False)
        self.asked = FactorTable(schema.num_items, decay)
        self.rated = FactorTable(schema.num_items, decay)  # of an event of the history, times its residual
        self.seen = FactorTable(schema.num_items, decay)  # of an event of the history
        self.known = nn.Parameter(torch.zeros(NUM_KNOWN))
        self.bias_V = nn.Parameter(torch.from_numpy(ratings.sum_V / (ratings.num_V + np.float32(ITEM_DAMPING))))
        for module in self.starts_at_zero:
            nn.init.zeros_(module.weight)
        with torch.no_grad():
            self.known[1] = _START_OF_MEAN_RESIDUAL

    @property
    def starts_at_zero(self) -> tuple[nn.Linear | nn.Embedding, ...]:
        """The modules whose weights start at zero, so that nothing is drawn for them."""
        return self.out, self.rated, self.seen

    def completed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a model. If they are of a version whose head knew nothing of the history, with zeros for all
        that it had not, so that it predicts as before."""
        if "rating.known" in weights or "rating.hidden.weight" not in weights:
            return dict(weights)
        missing = {f"rating.{name}": torch.zeros_like(weight) for name, weight in self.state_dict().items()}
        old = weights["rating.hidden.weight"]
        missing["rating.hidden.weight"] = nn.functional.pad(old, (0, NUM_KNOWN))
        return {**missing, **{name: weight for name, weight in weights.items() if name != "rating.hidden.weight"}}

    def running_sums(self, item_BT: Tensor, status_BT: Tensor, residual_BT: Tensor) -> Tensor:
        """(B · (T + 1), F) float32: the sum over a window's first t tokens, t = 0 … T, of their factors. The arguments
        are those of a `Batch`."""
        num_items = self.asked.num_embeddings
        in_view_BT = is_in_view(item_BT, status_BT, num_items, self.status_mask)
        item_BT = item_BT.clamp_max(num_items - 1)
        of_event_BTF = self.rated(item_BT) * residual_BT[..., None] + self.seen(item_BT) * in_view_BT[..., None]
        return nn.functional.pad(of_event_BTF.cumsum(1), (0, 0, 1, 0)).flatten(0, 1)

    def tastes(self, sums: Tensor, past: Past) -> Tensor:
        """(N, F) float32: the factors of each history. `sums` are `running_sums`."""
        of_events_NF = sums.index_select(0, past.stop_N) - sums.index_select(0, past.start_N)
        return of_events_NF * past.scale_N[:, None]

    def forward(
        self, state_ND: Tensor, inputs: TokenInputs, medium: int, item_N: Tensor, known_NX: Tensor, taste_NF: Tensor
    ) -> Tensor:
        """(N,) float32: predicted ratings of the items `item_N`, given as ids inside the medium."""
        item_N = item_N + self.medium_offsets[medium]
        from_trunk = torch.cat((state_ND, inputs.embed_items(item_N)), -1).detach()
        gate, value = self.hidden(torch.cat((from_trunk, known_NX), -1)).chunk(2, -1)
        deviation: Tensor = self.out(nn.functional.silu(gate) * value)[:, 0].float()
        deviation = deviation + known_NX @ self.known + (taste_NF * self.asked(item_N)).sum(-1) + self.bias_V[item_N]
        return self.means[medium] + self.stds[medium] * deviation

    def losses(self, state_ND: Tensor, inputs: TokenInputs, medium: int, targets: Targets, sums: Tensor) -> Tensor:
        """(N,) float32: squared errors. `sums` are `running_sums` of the targets' batch."""
        assert targets.past is not None, "targets of a watch task"
        taste_NF = self.tastes(sums, targets.past)
        predicted_N: Tensor = self(state_ND, inputs, medium, targets.item_N, targets.past.known_NX, taste_NF)
        return (predicted_N - targets.rating_N).square()


def _centred_log_counts(item_targets: NDArray[np.int64], medium_offsets: tuple[int, ...]) -> Tensor:
    """(V,) float32: log(training targets + 0.5) of each item, minus the mean over its medium."""
    logs = np.log(item_targets + 0.5)
    for low, high in itertools.pairwise(medium_offsets):
        logs[low:high] -= logs[low:high].mean()
    return torch.from_numpy(logs.astype(np.float32))
