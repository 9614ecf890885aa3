"""Cross entropy over all items, computed for a few targets at a time; the forward pass also computes the gradients.

The matrix of all logits is never in memory: one buffer of some rows is filled, turned into gradients and reused.
Axes: N targets, V items, D width, L places of a target's list of seen items.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from train.model.popularity import TermOfTargets, add_popularity, popularity_gradients

# Rows of logits at a time. On a CPU they fit in a core's cache. On a GPU they keep it busy with few kernels to compile;
# with many items, `_GPU_LOGITS` limits their memory.
_CPU_ROWS = 128
_GPU_ROWS = 8192
_LEAST_GPU_ROWS = 1024
_GPU_LOGITS = 2**28


def rows_at_a_time(device_type: str, num_items: int) -> int:
    """How many targets' logits over `num_items` items are computed at a time."""
    if device_type == "cpu":
        return _CPU_ROWS
    return max(_LEAST_GPU_ROWS, min(_GPU_ROWS, _GPU_LOGITS // num_items // 128 * 128))


@dataclass(frozen=True)
class SeenItems:
    """The items that the softmax of each target leaves out: `item_E[start_N[n] : stop_N[n]]` for target n."""

    item_E: Tensor  # int64, ids inside the medium; at least L entries follow the last range
    start_N: Tensor  # int64
    stop_N: Tensor  # int64
    place_L: Tensor  # int64: 0 … L - 1; L is at least the length of the longest range

    def leave_out(self, logits_NV: Tensor, rows: "slice | Tensor", item_N1: Tensor) -> None:
        """Sets the logits of the targets `rows` to -inf for the items to leave out. The target itself stays."""
        target_N1 = logits_NV.gather(1, item_N1)
        logits_NV.scatter_(1, self.columns(rows, item_N1), float("-inf"))
        logits_NV.scatter_(1, item_N1, target_N1)

    def columns(self, rows: slice | Tensor, item_N1: Tensor) -> Tensor:
        """(rows, L) int64: the items to leave out for the targets `rows`; free places hold the target's own item."""
        index = self.start_N[rows, None] + self.place_L
        item = self.item_E.index_select(0, index.view(-1)).view(index.shape)
        return torch.where(index < self.stop_N[rows, None], item, item_N1)


class WatchLogits(NamedTuple):
    """What the logits of targets are made of: state · tableᵀ + bias, and the term of popularity where there is one."""

    state_ND: Tensor
    table_VD: Tensor
    bias_V: Tensor
    term: TermOfTargets | None = None  # see train/model/popularity.py


def watch_losses(of: WatchLogits, item_N: Tensor, seen: SeenItems | None) -> Tensor:
    """(N,) float32: -log P(item) in nats, without gradients."""
    with torch.no_grad():
        weight_N = of.state_ND.new_ones(of.state_ND.shape[0])
        return _losses(of, item_N, weight_N, seen, with_gradients=False)[0]


def watch_loss_sum(of: WatchLogits, item_N: Tensor, weight_N: Tensor, seen: SeenItems | None) -> Tensor:
    """() float32: Σ weight · -log P(item) in nats. P is the softmax of the logits without the seen items.

    Logits and their softmax are float32. Under autocast, matrix products use the autocast type.
    """
    loss: Tensor = _WatchLossSum.apply(*of[:3], *(of.term or ()), item_N, weight_N, seen)  # type: ignore[no-untyped-call]
    return loss


class _WatchLossSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *of, item, weight, seen = inputs
        of_term = TermOfTargets(*of[3:]) if len(of) > 3 else None
        losses, *gradients = _losses(WatchLogits(of[0], of[1], of[2], of_term), item, weight, seen, with_gradients=True)
        ctx.save_for_backward(*gradients)
        ctx.num_inputs = len(inputs)
        loss: Tensor = (losses * weight).sum()
        return loss

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [gradient * grad_out for gradient in ctx.saved_tensors]
        return (*gradients, *[None] * (ctx.num_inputs - len(gradients)))


def _losses(
    of: WatchLogits, item_N: Tensor, weight_N: Tensor, seen: SeenItems | None, *, with_gradients: bool
) -> tuple[Tensor, ...]:
    """The losses (N,); `with_gradients` also the gradients of their weighted sum with respect to state, table, bias,
    and the term's coefficients if there is one."""
    state_ND, table_VD, bias_V, term = of
    num_targets, device = state_ND.shape[0], state_ND.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else torch.float32
    state, table = state_ND.to(dtype), table_VD.to(dtype)
    losses, grad_states = [state.new_empty(0, dtype=torch.float32)], [state_ND[:0]]
    grad_coefficients = [] if term is None else [term.coefficients_NF[:0]]
    grad_table, grad_bias = torch.zeros_like(table_VD), torch.zeros_like(bias_V)
    chunk_rows = rows_at_a_time(device.type, table.shape[0])
    buffer = state.new_empty(min(chunk_rows, num_targets), table.shape[0], dtype=torch.float32)
    for first in range(0, num_targets, chunk_rows):
        rows = slice(first, min(first + chunk_rows, num_targets))
        logits, item = buffer[: rows.stop - first], item_N[rows, None]
        _product(state[rows], table.T, bias_V, out=logits)
        of_rows = term.of(rows) if term else None
        if of_rows:
            add_popularity(logits, of_rows)
        target = logits.gather(1, item)
        if seen is not None:
            seen.leave_out(logits, rows, item)
        # log Σ exp(logit) = highest logit - log P(likeliest item), and this probability is at least 1 / V.
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
            if of_rows:
                grad_coefficients.append(popularity_gradients(logits, of_rows) * weight)
    if not with_gradients:
        return (torch.cat(losses),)
    more = [torch.cat(grad_coefficients)] if grad_coefficients else []
    return torch.cat(losses), torch.cat(grad_states), grad_table, grad_bias, *more


def watch_logits(of: WatchLogits) -> Tensor:
    """(N, V) float32."""
    logits = torch.addmm(of.bias_V, of.state_ND, of.table_VD.T)
    if of.term:
        add_popularity(logits, of.term)
    return logits


def _product(state: Tensor, table_DV: Tensor, bias_V: Tensor, *, out: Tensor) -> None:
    if state.dtype == torch.float32:
        torch.addmm(bias_V, state, table_DV, out=out)
    else:
        out.copy_(state @ table_DV).add_(bias_V)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right. The sum is float32 for every type of the product."""
    if left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total += (left @ right).float()
