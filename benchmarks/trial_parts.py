"""Parts of the model that trials put in the place of its own. The last argument of each is the folder of all runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import train.model.heads
import train.model.transformer
import train.training.update
from train.config import TrainConfig
from train.inference.scorer import Scorer
from train.model.attention import SelfAttention
from train.model.batch import Batch
from train.model.cpu_attention import SegmentPlan, segment_attention
from train.model.heads import WatchHead
from train.model.loss import SeenItems, WatchLogits, rows_at_a_time, watch_logits
from train.model.popularity import add_popularity, popularity_gradients
from train.model.transformer import EventTransformer
from train.training.optim import make_optimizer


def _put(owner: Any, name: str, part: Any) -> None:
    """Replaces a class or function that a module or class uses."""
    assert hasattr(owner, name)
    setattr(owner, name, part)


class CosineHead(WatchHead):
    """Logits are cosines of state and item, divided by a temperature that is learned (Wang et al., NormFace, 2017)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(10.0))))

    def _logits_of(self, *args: Any) -> WatchLogits:
        of = super()._logits_of(*args)
        state_ND = nn.functional.normalize(of.state_ND, dim=-1) * self.log_scale.exp()
        return of._replace(state_ND=state_ND, table_VD=nn.functional.normalize(of.table_VD, dim=-1))


def cosine(folder: Path) -> None:
    _put(train.model.transformer, "WatchHead", CosineHead)


class BiasAttention(SelfAttention):
    """The last `alone` heads have no queries and keys: their weights follow from distances in place and time alone."""

    alone: int

    def __init__(self, width: int, heads: int, *, relative: bool) -> None:
        super().__init__(width, heads, relative=relative)
        if self.alone == heads:
            self.to_qkv = nn.Linear(width, width, bias=False)

    def forward(self, x_BTD: Tensor, plan: Any) -> Tensor:
        assert isinstance(plan, SegmentPlan)
        of_BTD = self.to_qkv(x_BTD)
        width = of_BTD.shape[-1] if self.alone == self.heads else of_BTD.shape[-1] // 3
        if self.alone == self.heads:
            of_BTD = nn.functional.pad(of_BTD, (2 * width, 0))
        else:
            mask = torch.ones(3 * width)
            with_product = width // self.heads * (self.heads - self.alone)
            mask[with_product:width] = mask[width + with_product : 2 * width] = 0
            of_BTD = of_BTD * mask
        out: Tensor = self.to_out(segment_attention(of_BTD, self._coefficients(), plan))
        return out


def bias_heads(alone: int, folder: Path) -> None:
    BiasAttention.alone = alone
    _put(train.model.transformer, "SelfAttention", BiasAttention)


class MuonAndAdamW(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for the matrices, AdamW for all else. Updates of both have the same size (Liu et al.,
    Muon is scalable for LLM training, 2025), times `factor`. It cannot be resumed."""

    def __init__(self, of: torch.optim.AdamW, factor: float) -> None:
        matrices, *others = of.param_groups
        super().__init__(others, **{name: of.defaults[name] for name in ("lr", "betas", "fused")})
        self.factor = factor
        decay = matrices["weight_decay"] / factor
        self.muon = torch.optim.Muon(matrices["params"], weight_decay=decay, adjust_lr_fn="match_rms_adamw")

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self.muon.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        self.muon.param_groups[0]["lr"] = self.param_groups[0]["lr"] * self.factor
        self.muon.step()
        return super().step(closure)


def muon(factor: float, folder: Path) -> None:
    def make(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
        return MuonAndAdamW(make_optimizer(model, config), factor)

    _put(train.training.update, "make_optimizer", make)


# Rows of targets and their probabilities P(item), with 0 for items that the softmax leaves out → (rows, V): other
# probabilities, which a share of the target is made of.
Mixed = Callable[[slice, Tensor], Tensor]


class _MixedLossSum(torch.autograd.Function):
    """Σ weight · (nats of the item, with the gradient of the cross entropy to (1 - share) · item + share · mixed).

    The value is the plain loss, so that runs are compared by it. Otherwise as in train/model/loss.py."""

    @staticmethod
    def forward(ctx: Any, share: float, mixed: Mixed, of: WatchLogits, *inputs: Any) -> Tensor:
        item_N, weight_N, seen = inputs[-3:]
        state_ND, table_VD, bias_V, term = of
        losses, of_state, of_term = [], [], []
        grad_table, grad_bias = torch.zeros_like(table_VD), torch.zeros_like(bias_V)
        chunk = rows_at_a_time("cpu", len(table_VD))
        for first in range(0, len(state_ND), chunk):
            rows = slice(first, min(first + chunk, len(state_ND)))
            item, weight, part = item_N[rows, None], weight_N[rows, None], term.of(rows) if term else None
            logits = torch.addmm(bias_V, state_ND[rows], table_VD.T)
            if part:
                add_popularity(logits, part)
            if seen is not None:
                seen.leave_out(logits, rows, item)
            torch.softmax(logits, 1, out=logits)
            losses.append(-logits.gather(1, item)[:, 0].clamp_min(1e-30).log())
            logits.sub_(mixed(rows, logits), alpha=share)
            logits.scatter_add_(1, item, logits.new_full((1, 1), share - 1.0).expand_as(item))
            logits *= weight
            of_state.append(logits @ table_VD)
            grad_table.addmm_(logits.T, state_ND[rows])
            grad_bias += logits.sum(0)
            if part:
                of_term.append(popularity_gradients(logits, part))
        more = [torch.cat(of_term)] if term else []
        ctx.save_for_backward(torch.cat(of_state), grad_table, grad_bias, *more)
        ctx.num_inputs = len(inputs)
        return (torch.cat(losses) * weight_N).sum()

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [gradient * grad_out for gradient in ctx.saved_tensors]
        return None, None, None, *gradients, *[None] * (ctx.num_inputs - len(gradients))


def mixed_loss_sum(
    share: float, mixed: Mixed, of: WatchLogits, item_N: Tensor, weight_N: Tensor, seen: SeenItems | None
) -> Tensor:
    """() float32: see `_MixedLossSum`."""
    detached = WatchLogits(of.state_ND.detach(), of.table_VD.detach(), of.bias_V.detach(), of.term)
    if of.term:
        detached = detached._replace(term=of.term._replace(coefficients_NF=of.term.coefficients_NF.detach()))
    inputs = [*of[:3], *([of.term.coefficients_NF] if of.term else [])]
    loss: Tensor = _MixedLossSum.apply(share, mixed, detached, *inputs, item_N, weight_N, seen)
    return loss


def smooth_labels(share: float, folder: Path) -> None:
    """A share of each target is spread over all items that may be the answer (Szegedy et al., 2016)."""

    def even(rows: slice, probs: Tensor) -> Tensor:
        possible = (probs > 0).float()
        return possible / possible.sum(1, keepdim=True)

    _put(train.model.heads, "watch_loss_sum", partial(mixed_loss_sum, share, even))


def distil(share: float, folder: Path) -> None:
    """A share of each target is the mean of three teachers' probabilities (Hinton et al., 2015): the default's runs of
    the seeds 0, 1, 2."""
    teachers = [Scorer.of_run(run)._model for run in sorted(folder.glob("default-[012]"))]
    assert len(teachers) == 3, f"{folder}: needs the runs of the default with the seeds 0, 1, 2"
    states: list[Tensor] = []
    plain = EventTransformer.loss_sums

    class Student(WatchHead):
        def loss_sum(self, state_ND: Tensor, inputs: Any, medium: int, targets: Any, features: Any) -> Tensor:
            def taught(rows: slice, probs: Tensor) -> Tensor:
                mean = torch.zeros_like(probs)
                for teacher, state in zip(teachers, states, strict=True):
                    of = teacher.watch._logits_of(
                        state[targets.token_N[rows]],
                        teacher.inputs,
                        medium,
                        replace(
                            targets.popularity,
                            row_N=targets.popularity.row_N[rows],
                            time_N=targets.popularity.time_N[rows],
                            row=targets.popularity.row[rows],
                        ),
                        features,
                    )
                    logits = watch_logits(of)
                    targets.seen.leave_out(logits, rows, targets.item_N[rows, None])
                    mean += logits.softmax(1)
                return mean / len(teachers)

            of = self._logits_of(state_ND, inputs, medium, targets.popularity, features)
            return mixed_loss_sum(share, taught, of, targets.item_N, targets.weight_N, targets.seen)

    def loss_sums(self: EventTransformer, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            states[:] = [teacher(batch).flatten(0, 1) for teacher in teachers]
        return plain(self, batch)

    _put(train.model.transformer, "WatchHead", Student)
    _put(EventTransformer, "loss_sums", loss_sums)
