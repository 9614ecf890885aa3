"""Attention without CUDA: segments of similar length are computed together; there is no mask over a whole window.

A *slot* is the place of one token in a bucket, a group of segments padded to one length. Axes: N tokens of the batch,
S segments and L slots of a bucket, X = S * L * L pairs, C bias terms, H heads, K width of a head.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# 8, 12, 16, 24, 32, 48, …: padding makes a segment of 8 tokens or more at most 1.5 times as long.
_PADDED_LENGTHS = np.array([8 * 2**k + half * 4 * 2**k for k in range(18) for half in (0, 1)])


@dataclass(frozen=True)
class SegmentBucket:
    """The segments of one padded length, with the mask and bias terms of their pairs of tokens; for every layer."""

    token_SL: Tensor  # int64: flat token of each slot; slots after a segment's end repeat its first token
    mask_X: Tensor  # (1, X) float32: 0 where the query sees the key, -inf elsewhere
    terms_CX: Tensor  # float32: ln(1+|lag|), ln(1+|Δt|), [Δt = 0]; no rows without the bias


@dataclass(frozen=True)
class SegmentLayout:
    """The place of each token of a batch in the buckets. A PAD token has size 0 and a place after the last slot."""

    buckets: tuple[SegmentBucket, ...]
    num_slots: int
    base_N: Tensor  # int64: first slot of the token's bucket
    size_N: Tensor  # int64: slots of that bucket
    local_N: Tensor  # int64: the token's slot inside it


def segment_starts(segment_BT: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(B * T,) bool: whether a token is the first of its segment in its window."""
    starts = np.ones(segment_BT.shape, np.bool_)
    starts[:, 1:] = segment_BT[:, 1:] != segment_BT[:, :-1]
    return starts.reshape(-1)


def lay_out_segments(
    segment_BT: NDArray[np.int32],
    time_BT: NDArray[np.int64],
    time_known_BT: NDArray[np.bool_],
    *,
    causal: bool,
    relative: bool,
    device: torch.device,
) -> SegmentLayout:
    """The layout of a batch: segments grouped by padded length, with the bias terms of their pairs."""
    segment_N = segment_BT.reshape(-1)
    edges = np.append(np.flatnonzero(segment_starts(segment_BT)), segment_N.size)
    real = segment_N[edges[:-1]] >= 0
    first_G, len_G = edges[:-1][real], np.diff(edges)[real]
    padded_G = _PADDED_LENGTHS[np.searchsorted(_PADDED_LENGTHS, len_G)]

    base_N = np.zeros(segment_N.size, np.int64)
    size_N, local_N = np.zeros_like(base_N), np.zeros_like(base_N)
    buckets, num_slots = [], 0
    for padded in np.unique(padded_G):
        first_S, len_S = first_G[padded_G == padded], len_G[padded_G == padded]
        length = int(len_S.max())
        slot_L = np.arange(length)
        inside_SL = slot_L < len_S[:, None]
        token_SL = first_S[:, None] + np.where(inside_SL, slot_L, 0)
        tokens = token_SL[inside_SL]
        base_N[tokens], size_N[tokens] = num_slots, token_SL.size
        local_N[tokens] = np.flatnonzero(inside_SL)
        num_slots += token_SL.size
        visible_SLL = np.broadcast_to(inside_SL[:, None, :], (len(len_S), length, length))
        if causal:
            # A slot after the end also sees the segment's tokens: a row of -inf alone would become NaN.
            visible_SLL = visible_SLL & (slot_L <= slot_L[:, None])
        buckets.append(
            SegmentBucket(
                token_SL=torch.from_numpy(token_SL).to(device),
                mask_X=torch.from_numpy(_mask(visible_SLL)).to(device),
                terms_CX=_bias_terms(time_BT.reshape(-1)[token_SL], time_known_BT.reshape(-1)[token_SL], relative).to(
                    device
                ),
            )
        )
    base_N[segment_N < 0] = num_slots
    places = [torch.from_numpy(array).to(device) for array in (base_N, size_N, local_N)]
    return SegmentLayout(tuple(buckets), num_slots, *places)


def _mask(visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(visible, np.float32(0), np.float32(-np.inf)).reshape(1, -1)


def _bias_terms(time_SL: NDArray[np.int64], known_SL: NDArray[np.bool_], relative: bool) -> Tensor:
    """(C, X). Times are subtracted as integers and then rounded: different times may be equal as float32."""
    segments, length = time_SL.shape
    if not relative:
        return torch.empty(0, segments * length * length)
    terms = torch.empty(3, segments, length, length)
    slot = torch.arange(length)
    terms[0] = torch.log1p((slot[:, None] - slot).abs().float())
    time, known = torch.from_numpy(time_SL), torch.from_numpy(known_SL)
    apart = (time[:, :, None] - time[:, None, :]).abs_()
    both = known[:, :, None] & known[:, None, :]
    torch.mul(apart.float().log1p_(), both, out=terms[1])
    terms[2] = (apart == 0) & both
    return terms.view(3, -1)


@dataclass(frozen=True)
class SegmentPlan:
    """The layout as row numbers of tensors (rows, K): which row each slot of each head reads and writes."""

    layout: SegmentLayout
    heads: int
    gather_rows: Tensor  # (3 * H * num_slots,) int64, rows of (N, 3, H, K), bucket by bucket as (3, H, S, L)
    out_rows: Tensor  # (N * H,) int64, rows of the buckets' outputs (H, S, L); the row after the last for PAD
    grad_rows: Tensor  # (N * 3 * H,) int64, rows in the order of `gather_rows`; the row after the last for PAD

    @classmethod
    def of(cls, layout: SegmentLayout, heads: int) -> "SegmentPlan":
        """The plan of `layout`, computed once for all layers."""
        part = torch.arange(3 * heads, device=layout.base_N.device)
        gather = [
            (bucket.token_SL.reshape(1, -1) * (3 * heads) + part[:, None]).reshape(-1) for bucket in layout.buckets
        ]
        base, size, local = layout.base_N[:, None], layout.size_N[:, None], layout.local_N[:, None]
        return cls(
            layout=layout,
            heads=heads,
            gather_rows=torch.cat(gather) if gather else part[:0],
            out_rows=(base * heads + part[:heads] * size + local).reshape(-1),
            grad_rows=(base * (3 * heads) + part * size + local).reshape(-1),
        )


def segment_attention(qkv_BTD: Tensor, coefficient_HC: Tensor, plan: SegmentPlan) -> Tensor:
    """Attention inside each segment: softmax(q·k / √K + coefficients · terms) · v.

    `qkv_BTD` (B, T, 3 * H * K) holds queries, keys and values. Returns (B, T, H * K), 0 for PAD.
    """
    batch, window_len, width = qkv_BTD.shape
    rows = qkv_BTD.reshape(-1, width // (3 * plan.heads))
    out: Tensor = _SegmentAttention.apply(rows, coefficient_HC, plan)  # type: ignore[no-untyped-call]
    return out.view(batch, window_len, width // 3)


class _SegmentAttention(torch.autograd.Function):
    """Attention with a hand-written gradient: SDPA's fast CPU kernels do not accept a bias with a gradient. The bias is
    the matrix product of (H, C) and (C, X), and so is its gradient."""

    @staticmethod
    def forward(ctx: Any, qkv_rows: Tensor, coefficient_HC: Tensor, plan: SegmentPlan) -> Tensor:
        heads, head_width = plan.heads, qkv_rows.shape[1]
        rows = qkv_rows.index_select(0, plan.gather_rows)
        out = rows.new_empty(plan.layout.num_slots * heads + 1, head_width)
        out[-1] = 0  # what PAD tokens read
        weights, base = [], 0
        for bucket in plan.layout.buckets:
            segments, length = bucket.token_SL.shape
            slots = segments * length
            q, k, v = _parts(rows, base, slots, heads, length)
            score = torch.addmm(bucket.mask_X, coefficient_HC, bucket.terms_CX).view(-1, length, length)
            score.baddbmm_(q, k.transpose(1, 2), alpha=1 / math.sqrt(head_width))
            weight = torch.softmax(score, -1, out=score)
            out_rows = out[base * heads : (base + slots) * heads]
            torch.bmm(weight, v, out=out_rows.view(-1, length, head_width))
            weights.append(weight)
            base += slots
        ctx.save_for_backward(rows, *weights)
        ctx.plan, ctx.num_terms = plan, coefficient_HC.shape[1]
        return out.index_select(0, plan.out_rows)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, None]:
        plan: SegmentPlan = ctx.plan
        rows, *weights = ctx.saved_tensors
        heads, head_width = plan.heads, rows.shape[1]
        scale = 1 / math.sqrt(head_width)
        # Slots after a segment's end keep a gradient of 0. All PAD tokens write to the last row, which is never read.
        grad = rows.new_zeros(plan.layout.num_slots * heads + 1, head_width)
        grad.index_copy_(0, plan.out_rows, grad_out)
        grad_rows = rows.new_empty(rows.shape[0] + 1, head_width)
        grad_rows[-1] = 0
        grad_coefficient = rows.new_zeros(heads, ctx.num_terms)
        base = 0
        for bucket, weight in zip(plan.layout.buckets, weights, strict=True):
            segments, length = bucket.token_SL.shape
            slots = segments * length
            q, k, v = _parts(rows, base, slots, heads, length)
            grad_q, grad_k, grad_v = _parts(grad_rows, base, slots, heads, length)
            grad_o = grad[base * heads : (base + slots) * heads].view(-1, length, head_width)
            torch.bmm(weight.transpose(1, 2), grad_o, out=grad_v)
            grad_weight = torch.bmm(grad_o, v.transpose(1, 2))
            grad_score = torch.ops.aten._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
            torch.baddbmm(grad_q, grad_score, k, beta=0, alpha=scale, out=grad_q)
            torch.baddbmm(grad_k, grad_score.transpose(1, 2), q, beta=0, alpha=scale, out=grad_k)
            grad_coefficient.addmm_(grad_score.view(heads, -1), bucket.terms_CX.T)
            base += slots
        return grad_rows.index_select(0, plan.grad_rows), grad_coefficient, None


def _parts(rows: Tensor, base: int, slots: int, heads: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one bucket, each (H * S, L, K): views of `rows`."""
    part = rows[base * 3 * heads : (base + slots) * 3 * heads].view(3, -1, length, rows.shape[1])
    return part[0], part[1], part[2]
