"""Cross entropy over all items, a few rows of logits at a time, its gradients made in the forward pass.

The matrix of all logits is never held: a buffer of some rows is filled, turned into gradients and reused.
Axes: N targets, V items, D width, L places of a target's list of seen items.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Rows of logits at a time: what stays in a core's cache; and what fills a GPU, with few kernels to compile, but no
# more of its memory than so many logits where items are many.
_CPU_ROWS = 128
_GPU_ROWS = 8192
_LEAST_GPU_ROWS = 1024
_GPU_LOGITS = 2**28


def rows_at_a_time(device_type: str, num_items: int) -> int:
    """How many targets' logits over `num_items` are held at once."""
    if device_type == "cpu":
        return _CPU_ROWS
    return max(_LEAST_GPU_ROWS, min(_GPU_ROWS, _GPU_LOGITS // num_items // 128 * 128))


@dataclass(frozen=True)
class SeenItems:
    """Which items each target's softmax leaves out: `item_E[start_N[n] : stop_N[n]]` for target n."""

    item_E: Tensor  # int64, ids inside the medium; at least L entries follow the last range
    start_N: Tensor  # int64
    stop_N: Tensor  # int64
    place_L: Tensor  # int64: 0 … L - 1, L at least the longest range

    def columns(self, rows: slice, item_N1: Tensor) -> Tensor:
        """(rows, L) int64: what to leave out, filled up with the target's own item."""
        index = self.start_N[rows, None] + self.place_L
        item = self.item_E.index_select(0, index.view(-1)).view(index.shape)
        return torch.where(index < self.stop_N[rows, None], item, item_N1)


def watch_losses(state_ND: Tensor, table_VD: Tensor, bias_V: Tensor, item_N: Tensor, seen: SeenItems | None) -> Tensor:
    """(N,) float32: -log P(item) in nats, without gradients."""
    with torch.no_grad():
        weight_N = state_ND.new_ones(state_ND.shape[0])
        return _losses(state_ND, table_VD, bias_V, item_N, weight_N, seen, with_gradients=False)[0]


def watch_loss_sum(
    state_ND: Tensor, table_VD: Tensor, bias_V: Tensor, item_N: Tensor, weight_N: Tensor, seen: SeenItems | None
) -> Tensor:
    """() float32: Σ weight · -log P(item) in nats, P the softmax of state · tableᵀ + bias over items not left out.

    Logits and their softmax are float32; under autocast the products take its type.
    """
    loss: Tensor = _WatchLossSum.apply(state_ND, table_VD, bias_V, item_N, weight_N, seen)  # type: ignore[no-untyped-call]
    return loss


class _WatchLossSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, state: Tensor, table: Tensor, bias: Tensor, item: Tensor, weight: Tensor, seen: SeenItems | None
    ) -> Tensor:
        losses, *gradients = _losses(state, table, bias, item, weight, seen, with_gradients=True)
        ctx.save_for_backward(*gradients)
        return (losses * weight).sum()

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        grad_state, grad_table, grad_bias = ctx.saved_tensors
        return grad_state * grad_out, grad_table * grad_out, grad_bias * grad_out, None, None, None


def _losses(
    state_ND: Tensor,
    table_VD: Tensor,
    bias_V: Tensor,
    item_N: Tensor,
    weight_N: Tensor,
    seen: SeenItems | None,
    *,
    with_gradients: bool,
) -> tuple[Tensor, ...]:
    """The losses (N,), then, where asked for, gradients of their weighted sum by state, table and bias."""
    num_targets, device = state_ND.shape[0], state_ND.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else torch.float32
    state, table = state_ND.to(dtype), table_VD.to(dtype)
    losses, grad_states = [state.new_empty(0, dtype=torch.float32)], [state_ND[:0]]
    grad_table, grad_bias = torch.zeros_like(table_VD), torch.zeros_like(bias_V)
    chunk_rows = rows_at_a_time(device.type, table.shape[0])
    buffer = state.new_empty(min(chunk_rows, num_targets), table.shape[0], dtype=torch.float32)
    for first in range(0, num_targets, chunk_rows):
        rows = slice(first, min(first + chunk_rows, num_targets))
        logits, item = buffer[: rows.stop - first], item_N[rows, None]
        _product(state[rows], table.T, bias_V, out=logits)
        target = logits.gather(1, item)
        if seen is not None:
            logits.scatter_(1, seen.columns(rows, item), float("-inf"))
            logits.scatter_(1, item, target)  # the target itself is never left out
        # The log of the sum comes from the likeliest item, whose probability is at least 1 / V.
        highest = logits.amax(1)
        torch.softmax(logits, 1, out=logits)
        losses.append(highest - logits.amax(1).log() - target[:, 0])
        if with_gradients:
            logits.scatter_add_(1, item, logits.new_full((1, 1), -1.0).expand_as(item))
            weight = weight_N[rows, None]
            grad_logits = logits.to(dtype)
            grad_states.append(((grad_logits @ table).float() * weight).to(state_ND.dtype))
            _add_product(grad_table, grad_logits.T, (state[rows] * weight).to(dtype))
            grad_bias.addmv_(logits.T, weight[:, 0])
    if not with_gradients:
        return (torch.cat(losses),)
    return torch.cat(losses), torch.cat(grad_states), grad_table, grad_bias


def _product(state: Tensor, table_DV: Tensor, bias_V: Tensor, *, out: Tensor) -> None:
    if state.dtype == torch.float32:
        torch.addmm(bias_V, state, table_DV, out=out)
    else:
        out.copy_(state @ table_DV).add_(bias_V)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, added up in float32 whatever the product's type."""
    if left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total += (left @ right).float()
