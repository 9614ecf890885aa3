"""The naive twin of attention: one dense matrix of scores per window and head."""

import math

import torch
from torch import Tensor


def naive_attention(
    qkv_BTD: Tensor,
    a_H: Tensor,
    b_H: Tensor,
    z_H: Tensor,
    segment_BT: Tensor,
    time_BT: Tensor,
    known_BT: Tensor,
    *,
    causal: bool,
) -> Tensor:
    """(B, T, H * K) from queries, keys and values (B, T, 3 * H * K); zeros on PAD (segment -1)."""
    batch, window_len, width = qkv_BTD.shape
    heads = len(a_H)
    head_width = width // (3 * heads)
    qkv = qkv_BTD.view(batch, window_len, 3, heads, head_width)
    out = torch.zeros(batch, window_len, heads, head_width)
    for row in range(batch):
        for i in range(window_len):
            keys = [
                j for j in range(window_len) if segment_BT[row, i] == segment_BT[row, j] >= 0 and (j <= i or not causal)
            ]
            for head in range(heads if keys else 0):
                scores = []
                for j in keys:
                    score = qkv[row, i, 0, head] @ qkv[row, j, 1, head] / math.sqrt(head_width)
                    score = score - a_H[head] * math.log(1 + abs(i - j))
                    if known_BT[row, i] and known_BT[row, j]:
                        seconds = abs(int(time_BT[row, i]) - int(time_BT[row, j]))
                        score = score - b_H[head] * math.log(1 + seconds) + z_H[head] * (seconds == 0)
                    scores.append(score)
                weight = torch.softmax(torch.stack(scores), 0)
                out[row, i, head] = weight @ qkv[row, keys, 2, head]
    return out.reshape(batch, window_len, heads * head_width)


def assert_padding_is_silent(attend, plan, invented):
    """PAD reads zeros and gets no gradient, and nothing becomes NaN; 4 windows of 32, the last empty."""
    qkv = torch.randn(4, 32, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = attend(qkv, torch.zeros(2, 3), plan)
    out.square().sum().backward()
    pad = torch.from_numpy(invented.arrays["segment"] < 0)
    assert pad[-1].all()
    assert not out[pad].any()
    assert not qkv.grad[pad].any()
    assert torch.isfinite(out).all()
    assert torch.isfinite(qkv.grad).all()
