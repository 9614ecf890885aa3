"""Block-diagonal attention with a learned bias of what lies between two tokens.

Order and time reach attention by the distance of two tokens of a segment, never by an absolute index.
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
    """Attention of each token to those of its segment that it may see.

    With `relative`, a head adds -a·ln(1 + |lag|) - b·ln(1 + |Δt|) + z·[Δt = 0] to its scores: lag in tokens,
    Δt in whole seconds between own times, its terms 0 where either token has none.
    """

    def __init__(self, width: int, heads: int, *, relative: bool) -> None:
        super().__init__()
        self.heads = heads
        self.relative = relative
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        if relative:
            # Heads start out between a wide view and a short one.
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
        """(H, C): what each head multiplies the terms of `SegmentBucket.terms_CX` with."""
        if self.relative:
            return torch.stack((-self.a_H, -self.b_H, self.z_H), 1)
        return self.to_qkv.weight.new_empty(self.heads, 0)


def attention_plan(batch: Batch, heads: int, *, causal: bool) -> "SegmentPlan | RangePlan":
    """What the layers share of a batch."""
    if batch.layout is not None:
        return SegmentPlan.of(batch.layout, heads)
    from train.model.cuda_attention import range_plan

    return range_plan(batch.segment_BT, batch.time_BT, batch.time_known_BT, causal=causal)
