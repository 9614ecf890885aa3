"""Attention inside segments, with a learned bias for the distance between two tokens.

Attention knows order and time only as distances between two tokens of a segment, never as absolute positions.
Axes: B windows, T tokens, D width, H heads, C bias terms.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from train.model.batch import Batch
from train.model.cpu_attention import SegmentPlan, segment_attention

if TYPE_CHECKING:
    from train.model.cuda_attention import RangePlan


class SelfAttention(nn.Module):
    """Each token attends to the tokens of its segment that it may see.

    With `relative`, each head adds -a·ln(1 + |lag|) - b·ln(1 + |Δt|) + z·[Δt = 0] to its scores. The lag is counted in
    tokens. Δt is the difference of the tokens' own times in whole seconds; its terms are 0 if either time is unknown.
    """

    def __init__(self, width: int, heads: int, *, relative: bool) -> None:
        super().__init__()
        self.heads = heads
        self.relative = relative
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        if relative:
            # At the start some heads look far back and others only at close tokens.
            self.a_H = nn.Parameter(torch.linspace(0.1, 1, heads))
            self.b_H = nn.Parameter(torch.full((heads,), 0.05))
            self.z_H = nn.Parameter(torch.zeros(heads))

    def forward(self, x_BTD: Tensor, plan: "SegmentPlan | RangePlan") -> Tensor:
        """(B, T, D) → (B, T, D)."""
        qkv_BTD = self.to_qkv(x_BTD)
        if isinstance(plan, SegmentPlan):
            y_BTD = segment_attention(qkv_BTD, self._coefficients(), plan)
        else:
            from train.model.cuda_attention import range_attention

            y_BTD = range_attention(qkv_BTD, self._coefficients(), plan)
        out: Tensor = self.to_out(y_BTD)
        return out

    def _coefficients(self) -> Tensor:
        """(H, C): the factors of each head for the bias terms (see `SegmentBucket.terms_CX`)."""
        if self.relative:
            return torch.stack((-self.a_H, -self.b_H, self.z_H), 1)
        return self.to_qkv.weight.new_empty(self.heads, 0)


def attention_plan(batch: Batch, heads: int, *, causal: bool) -> "SegmentPlan | RangePlan":
    """The part of attention that depends on the batch alone; all layers share it."""
    if batch.layout is not None:
        return SegmentPlan.of(batch.layout, heads)
    from train.model.cuda_attention import range_plan

    return range_plan(batch.segment_BT, batch.time_BT, batch.time_known_BT, causal=causal)
