"""Attention inside segments on CUDA: the plan of a batch, and the kernels as operators that `torch.compile` accepts.

`attention.py` imports this module only when needed, because it loads Triton. Axes: B windows, T tokens, H heads,
K width of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.model import cuda_kernels

# Queries and keys per block. With larger blocks the registers of a Hopper GPU spill into memory.
_QUERIES, _KEYS = 64, 32
# A time is split into its low 20 bits and the rest. float32 holds each part exactly, so equal times stay equal and a
# difference is rounded only once.
_LOW_BITS = 20


@dataclass(frozen=True)
class RangePlan:
    """Which tokens see each other in a batch, and the tokens' times; all layers share it."""

    range_4BT: Tensor  # int32: start and end of the keys that a query sees; start and end of the queries that see a key
    time_3BT: Tensor  # float32: high part of the time; low part; 1 if the time is known


def range_plan(segment_BT: Tensor, time_BT: Tensor, time_known_BT: Tensor, *, causal: bool) -> RangePlan:
    """The plan of a batch. PAD sees nothing.

    Segments are contiguous and numbered in order, so a query sees one range of keys. Ranges need no mask and no waiting
    for the device, and the shapes are the same for all values.
    """
    window_len = segment_BT.shape[1]
    pad = segment_BT < 0
    # PAD lies after the last segment; the search needs ascending numbers.
    numbered_BT = torch.where(pad, torch.iinfo(segment_BT.dtype).max, segment_BT).contiguous()
    first = torch.searchsorted(numbered_BT, numbered_BT, out_int32=True)
    end = torch.searchsorted(numbered_BT, numbered_BT, out_int32=True, right=True)
    place = torch.arange(window_len, device=segment_BT.device, dtype=torch.int32).expand_as(first)
    starts, stops = (first, place) if causal else (first, first), (place + 1, end) if causal else (end, end)
    parts = [torch.where(pad, window_len, starts[0]), torch.where(pad, 0, stops[0])]
    parts += [torch.where(pad, window_len, starts[1]), torch.where(pad, 0, stops[1])]
    high, low = time_BT >> _LOW_BITS, time_BT & ((1 << _LOW_BITS) - 1)
    return RangePlan(torch.stack(parts).int(), torch.stack((high.float(), low.float(), time_known_BT.float())))


def range_attention(qkv_BTD: Tensor, coefficient_HC: Tensor, plan: RangePlan) -> Tensor:
    """Attention inside each segment: softmax(q·k / √K + coefficients · terms) · v, with the terms of `SelfAttention`.

    `qkv_BTD` (B, T, 3 * H * K) holds queries, keys and values. Returns (B, T, H * K), 0 for PAD.
    """
    out: Tensor = _attend(qkv_BTD.contiguous(), coefficient_HC.float().contiguous(), plan.range_4BT, plan.time_3BT)[0]
    return out


@torch.library.custom_op("streamfeat::range_attention", mutates_args=())
def _attend(qkv: Tensor, coefficients: Tensor, ranges: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H * K), and log2 of the softmax's denominators, (B, H, T) float32."""
    out, lse = _empty_outputs(qkv, coefficients, ranges, times)
    if qkv.numel():
        cuda_kernels.forward[_grid(qkv, coefficients, _QUERIES)](
            qkv, coefficients, ranges, times, out, lse, *_numbers(qkv, coefficients), **_shapes(qkv, coefficients)
        )
    return out, lse


@torch.library.custom_op("streamfeat::range_attention_backward", mutates_args=())
def _attend_backward(
    grad_out: Tensor, qkv: Tensor, coefficients: Tensor, ranges: Tensor, times: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to `qkv` and `coefficients`."""
    grad_qkv = torch.empty_like(qkv)
    if not qkv.numel():
        return grad_qkv, torch.zeros_like(coefficients)
    grid, numbers, shapes = _grid(qkv, coefficients, _QUERIES), _numbers(qkv, coefficients), _shapes(qkv, coefficients)
    grad_out, delta = grad_out.contiguous(), torch.empty_like(lse)
    parts = coefficients.new_empty(len(qkv), -(-qkv.shape[1] // _QUERIES), *coefficients.shape)
    cuda_kernels.backward_queries[grid](
        grad_out, qkv, coefficients, ranges, times, out, lse, delta, grad_qkv, parts, *numbers, **shapes
    )
    cuda_kernels.backward_keys[_grid(qkv, coefficients, _KEYS)](
        grad_out, qkv, coefficients, ranges, times, lse, delta, grad_qkv, *numbers, **shapes
    )
    return grad_qkv, parts.sum((0, 1))


@_attend.register_fake
def _empty_outputs(qkv: Tensor, coefficients: Tensor, ranges: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    batch, window_len, width = qkv.shape
    out = qkv.new_empty(batch, window_len, width // 3)
    return out, qkv.new_empty(batch, coefficients.shape[0], window_len, dtype=torch.float32)


@_attend_backward.register_fake
def _empty_gradients(
    grad_out: Tensor, qkv: Tensor, coefficients: Tensor, ranges: Tensor, times: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(qkv), torch.empty_like(coefficients)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    grad_qkv, grad_coefficients = _attend_backward(grad_out, *ctx.saved_tensors)
    return grad_qkv, grad_coefficients, None, None


_attend.register_autograd(_differentiate, setup_context=_save)


def _grid(qkv: Tensor, coefficients: Tensor, block: int) -> tuple[int]:
    """One program for each block of each head and window."""
    return (-(-qkv.shape[1] // block) * len(coefficients) * len(qkv),)


def _numbers(qkv: Tensor, coefficients: Tensor) -> tuple[int, int, float]:
    """T, B * T and 1 / √K."""
    batch, window_len, width = qkv.shape
    return window_len, batch * window_len, (width // (3 * coefficients.shape[0])) ** -0.5


def _shapes(qkv: Tensor, coefficients: Tensor) -> dict[str, int]:
    """The values that are fixed when a kernel is compiled."""
    heads, num_terms = coefficients.shape
    head_width = qkv.shape[2] // (3 * heads)
    return {
        "H": heads,
        "K": head_width,
        "PADDED": max(16, 1 << (head_width - 1).bit_length()),
        "BIAS": int(num_terms > 0),
        "I_BLOCK": _QUERIES,
        "J_BLOCK": _KEYS,
        "num_warps": 4,
        "num_stages": 2,
    }
