"""Which ratings of a history tell of an item: attention of the asked item over rated events, beside the trunk.

Axes: B windows, T tokens, N histories, K items asked of each, L events, F factors.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from train.model.cpu_attention import SegmentPlan, segment_attention

if TYPE_CHECKING:
    from train.model.cuda_attention import RangePlan

_FACTORS = 31  # with the number that a key adds to every score, the width of a head on the CUDA kernels
_GAIN = 20.0  # of products: factors start small, and move by the learning rate in a step
_START_OF_DOUBT = math.log(3)
_START_OF_WEIGHT = 0.7
_LEAST = -30.0  # score of events without a rating


class FactorTable(nn.Embedding):
    """Factors of items, with a weight decay of their own."""

    by_item = ("weight",)  # see carry.py

    def __init__(self, num_items: int, num_factors: int, decay: float) -> None:
        super().__init__(num_items, num_factors)
        self.decay = decay


class RatingAttention(nn.Module):
    """A learned weight times Σ w · residual over the rated events of a history, w = softmax of products of the factors
    of the asked and the rated item. At the start this is nearly .7 times the damped mean of the residuals.

    The first token of a segment stands for doubt: it has a learned score and the residual 0, so that few ratings, or
    only ratings of other kinds of items, tell little.
    """

    def __init__(self, num_items: int, decay: float) -> None:
        super().__init__()
        self.asked = FactorTable(num_items, _FACTORS, decay)
        self.rated = FactorTable(num_items, _FACTORS, decay)
        self.doubt = nn.Parameter(torch.tensor(_START_OF_DOUBT))
        self.weight = nn.Parameter(torch.tensor(_START_OF_WEIGHT))

    def forward(
        self,
        asked_BT: Tensor,
        item_BT: Tensor,
        residual_BT: Tensor,
        rated_BT: Tensor,
        first_BT: Tensor,
        plan: "SegmentPlan | RangePlan",
        num_terms: int,
    ) -> Tensor:
        """(B, T) float32: what the history of each token tells of the item `asked_BT`. `plan` is that of one head, with
        `num_terms` bias terms, which are not used. `first_BT` marks the first token of each segment."""
        scale = math.sqrt(_FACTORS + 1)  # the attention divides by it
        query = torch.cat(
            (self.asked(asked_BT) * (_GAIN * scale), residual_BT.new_full((*asked_BT.shape, 1), scale)), -1
        )
        key = torch.cat(self._keys(item_BT, rated_BT, first_BT), -1)
        value = nn.functional.pad((residual_BT * ~first_BT)[..., None], (0, _FACTORS))
        qkv, coefficients = torch.cat((query, key, value), -1), residual_BT.new_zeros(1, num_terms)
        if isinstance(plan, SegmentPlan):
            return self.weight * segment_attention(qkv, coefficients, plan)[..., 0]
        from train.model.cuda_attention import range_attention

        return self.weight * range_attention(qkv, coefficients, plan)[..., 0].float()

    def of_items(
        self,
        asked_NK: Tensor,
        item_NL: Tensor,
        residual_NL: Tensor,
        rated_NL: Tensor,
        first_NL: Tensor,
        mask_NL: Tensor,
    ) -> Tensor:
        """(N, K) float32: the same for K items and each of N histories, whose tokens are those in `mask_NL`."""
        factors_NLF, score_NL1 = self._keys(item_NL, rated_NL, first_NL)
        score_NKL = _GAIN * torch.einsum("nkf,nlf->nkl", self.asked(asked_NK), factors_NLF) + score_NL1.transpose(1, 2)
        weight_NKL = score_NKL.masked_fill(~mask_NL[:, None], -torch.inf).softmax(-1)
        return self.weight * torch.einsum("nkl,nl->nk", weight_NKL, residual_NL * ~first_NL)

    def _keys(self, item: Tensor, rated: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """(…, F) factors of the tokens' items, and (…, 1) what is added to their scores."""
        counts = rated & ~first
        score = torch.where(first, self.doubt, torch.where(rated, 0.0, _LEAST))
        return self.rated(item) * counts[..., None], score[..., None]
