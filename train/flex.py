"""Attention on CUDA: FlexAttention over the blocks of a window that hold a visible pair.

Apart from `attention.py`, since this brings torch's compiler along: a second of imports that a CPU need not wait for.
Axes: B windows, T tokens, H heads, K width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

_BLOCK = 128  # tokens of a FlexAttention block

# Outside of a compiled model FlexAttention would fall back to whole score matrices.
_compiled_flex_attention = torch.compile(flex_attention)


@dataclass(frozen=True)
class FlexPlan:
    """What FlexAttention needs of a batch; all layers share it."""

    block_mask: BlockMask
    time_BT: Tensor  # int64
    time_known_BT: Tensor  # bool


def block_attention(qkv_BTD: Tensor, heads: int, bias: tuple[Tensor, Tensor, Tensor] | None, plan: FlexPlan) -> Tensor:
    """Attention inside each segment, with the bias of the parameters a, b and z (H,), where given.

    `qkv_BTD` (B, T, 3 * H * K) holds queries, keys and values; returns (B, T, H * K).
    """
    batch, window_len, _ = qkv_BTD.shape
    q, k, v = qkv_BTD.view(batch, window_len, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    attend = flex_attention if torch.compiler.is_compiling() else _compiled_flex_attention
    if bias is None:
        y = attend(q, k, v, block_mask=plan.block_mask)
    else:
        # The backward pass adds every pair's gradient atomically: one address per head and query instead
        # of one per head keeps those additions apart; summing over queries is then autograd's.
        a_HT, b_HT, z_HT = (p[:, None].expand(-1, window_len) for p in bias)
        time_BT, known_BT = plan.time_BT, plan.time_known_BT

        def with_bias(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            apart = (time_BT[b, i] - time_BT[b, j]).abs()
            of_time = z_HT[h, i] * (apart == 0) - b_HT[h, i] * torch.log1p(apart.float())
            both = known_BT[b, i] & known_BT[b, j]
            return score - a_HT[h, i] * torch.log1p((i - j).abs().float()) + torch.where(both, of_time, 0.0)

        y = attend(q, k, v, score_mod=with_bias, block_mask=plan.block_mask)
    assert isinstance(y, Tensor)
    return y.transpose(1, 2).reshape(batch, window_len, -1)


def flex_plan(segment_BT: Tensor, time_BT: Tensor, time_known_BT: Tensor, *, causal: bool) -> FlexPlan:
    """The plan of a batch on CUDA. Which blocks hold a visible pair follows from each block's first and last
    segment, since segments are contiguous and numbered in order: no mask of all pairs is ever made, nothing
    waits for the device, and shapes depend on no value.
    """
    batch, window_len = segment_BT.shape
    num_blocks = -(-window_len // _BLOCK)
    last = torch.iinfo(segment_BT.dtype).max
    numbered_BT = torch.where(segment_BT < 0, last, segment_BT)  # PAD comes after every segment
    tail = num_blocks * _BLOCK - window_len
    blocks = nn.functional.pad(numbered_BT, (0, tail), value=last).view(batch, num_blocks, _BLOCK)
    low, high = blocks[..., 0], blocks[..., -1]
    some = (low[:, :, None] <= high[:, None, :]) & (low[:, None, :] <= high[:, :, None])
    whole = (low == high)[:, :, None] & (low == high)[:, None, :] & (low[:, :, None] == low[:, None, :])
    block = torch.arange(num_blocks, device=segment_BT.device)
    if causal:
        some = some & (block <= block[:, None])
        whole = whole & (block < block[:, None])
    if tail:  # a block that is cut off is never whole
        whole = whole & ((block < num_blocks - 1) & (block < num_blocks - 1)[:, None])

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        same = segment_BT[b, i] == segment_BT[b, j]
        return same & (j <= i) if causal else same

    block_mask = BlockMask.from_kv_blocks(
        *_listed(some & ~whole),
        *_listed(whole),
        BLOCK_SIZE=_BLOCK,
        mask_mod=visible,
        seq_lengths=(window_len, window_len),
    )
    return FlexPlan(block_mask, time_BT, time_known_BT)


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Per row of blocks: how many are chosen (B, 1, rows), and their indices first (B, 1, rows, blocks)."""
    count = chosen.sum(-1, dtype=torch.int32)
    index = torch.argsort(chosen.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)
    return count[:, None], index[:, None]
