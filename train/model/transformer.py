"""A pre-norm transformer over windows of packed histories, with RMSNorm, SwiGLU and no biases in its layers.

Axes: B windows, T tokens, D width, F feed-forward width, N targets of a task.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfeat.kernels.draws import INITIAL_WEIGHTS, draws
from streamfeat.store.manifest import Manifest, MediumScales
from train.config import ModelConfig, TrainConfig
from train.model.attention import SelfAttention, attention_plan
from train.model.batch import Batch, BatchFacts
from train.model.cpu_attention import SegmentPlan
from train.model.dropout import Dropout
from train.model.heads import RatingHead, WatchHead
from train.model.inputs import TokenInputs
from train.terms.terms import Terms

if TYPE_CHECKING:
    from train.model.cuda_attention import RangePlan

_EMBEDDING_STD = 0.05


class FeedForward(nn.Module):
    """SwiGLU, with dropout on the hidden values."""

    def __init__(self, width: int, hidden: int, dropout: Dropout) -> None:
        super().__init__()
        self.to_hidden = nn.Linear(width, 2 * hidden, bias=False)
        self.to_out = nn.Linear(hidden, width, bias=False)
        self.dropout = dropout

    def forward(self, x_BTD: Tensor, keys: NDArray[np.uint64] | None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        gate_BTF, value_BTF = self.to_hidden(x_BTD).chunk(2, -1)
        out: Tensor = self.to_out(self.dropout(nn.functional.silu(gate_BTF) * value_BTF, keys))
        return out


class Block(nn.Module):
    """Attention, then feed-forward. Each reads the normed values and adds its output to them."""

    def __init__(self, config: ModelConfig, layer: int, *, relative: bool) -> None:
        super().__init__()
        place = 1 + 3 * layer  # the dropout of the inputs has place 0
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = SelfAttention(config.width, config.heads, relative=relative)
        self.attention_dropout = Dropout(config.dropout, place)
        self.feed_forward_norm = nn.RMSNorm(config.width)
        self.feed_forward = FeedForward(
            config.width, round(config.feed_forward * config.width), Dropout(config.dropout, place + 1)
        )
        self.feed_forward_dropout = Dropout(config.dropout, place + 2)

    def forward(self, x_BTD: Tensor, plan: "SegmentPlan | RangePlan", keys: NDArray[np.uint64] | None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        x_BTD = x_BTD + self.attention_dropout(self.attention(self.attention_norm(x_BTD), plan), keys)
        x_BTD = x_BTD + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(x_BTD), keys), keys)
        return x_BTD


class EventTransformer(nn.Module):
    """The model of one dataset. It computes the losses of all tasks of a `Batch`.

    Its initial weights are a pure function of `seed`.
    """

    def __init__(
        self,
        config: ModelConfig,
        facts: BatchFacts,
        scales: Sequence[MediumScales],
        item_targets: NDArray[np.int64],  # (V,): training targets of each item
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.media = facts.schema.media
        self.causal = facts.causal
        self.heads = config.heads
        relative = facts.relative
        self.inputs = TokenInputs(facts.schema, config.width, facts.num_values, relative=relative, causal=facts.causal)
        self.input_dropout = Dropout(config.dropout, 0)
        self.blocks = nn.ModuleList(Block(config, layer, relative=relative) for layer in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        self.output_dropout = Dropout(config.dropout, 1 + 3 * config.layers)
        self.watch = WatchHead(facts.schema, item_targets, config.width, knows_popularity=facts.knows_popularity)
        self.rating = RatingHead(facts.schema, scales, facts.ratings, config.width)
        _draw_weights(self, seed, config.layers)

    @classmethod
    def of(
        cls, manifest: Manifest, config: TrainConfig, item_targets: NDArray[np.int64], terms: Terms | None = None
    ) -> "EventTransformer":
        """The untrained model for `config`, the dataset of `manifest` and the tables of its training events; without
        tables, as earlier versions trained it."""
        facts = BatchFacts.of(manifest, config, terms)
        return cls(config.model, facts, manifest.scales, item_targets, seed=config.seed)

    def forward(self, batch: Batch) -> Tensor:
        """(B, T, D) float32: the normed state after each token; in training with dropout."""
        x_BTD = self.input_dropout(self.inputs(batch), batch.dropout_keys)
        plan = attention_plan(batch, self.heads, causal=self.causal)
        for block in self.blocks:
            x_BTD = block(x_BTD, plan, batch.dropout_keys)
        state_BTD: Tensor = self.output_dropout(self.norm(x_BTD), batch.dropout_keys)
        return state_BTD

    def loss_sums(self, batch: Batch) -> dict[str, Tensor]:
        """Task → Σ weight · loss over its targets, () float32, differentiable. The loss of a watch task is in nats, the
        loss of a rating task in squared rating units."""
        state_ND = self(batch).flatten(0, 1)
        of_history = self.rating.running_sums(batch.item_BT, batch.status_BT, batch.residual_BT)
        sums = {}
        for task, targets in batch.targets.items():
            medium, watch = self._task(task)
            state = state_ND.index_select(0, targets.token_N)
            if watch:
                sums[task] = self.watch.loss_sum(state, self.inputs, medium, targets, batch.features)
            else:
                errors = self.rating.losses(state, self.inputs, medium, targets, of_history)
                sums[task] = (errors * targets.weight_N).sum()
        return sums

    @torch.no_grad()
    def target_losses(self, batch: Batch, state_ND: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Task → unweighted loss (n,) float32 and user (n,) int32 of each target; on the CPU, without padding.

        `state_ND` are the states of all tokens, if they are known already.
        """
        if state_ND is None:
            state_ND = self(batch).flatten(0, 1)
        of_history = self.rating.running_sums(batch.item_BT, batch.status_BT, batch.residual_BT)
        losses = {}
        for task, targets in batch.targets.items():
            medium, watch = self._task(task)
            state = state_ND.index_select(0, targets.token_N)
            if watch:
                loss = self.watch.losses(state, self.inputs, medium, targets, batch.features)
            else:
                loss = self.rating.losses(state, self.inputs, medium, targets, of_history)
            losses[task] = loss[: len(targets.user)].cpu(), torch.from_numpy(targets.user)
        return losses

    def _task(self, task: str) -> tuple[int, bool]:
        """The medium's index of a task, and whether it is a watch task."""
        medium, _, kind = task.rpartition("_")
        return self.media.index(medium), kind == "watch"


@torch.no_grad()
def _draw_weights(model: EventTransformer, seed: int, layers: int) -> None:
    """Draws all embeddings and matrices, each with a generator of its own, so that torch's global generator does not
    matter. The output matrices of blocks get smaller weights, because 2 * layers outputs add up. What starts at zero
    stays zero."""
    modules = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    into_stream = {m.to_out for m in model.modules() if isinstance(m, SelfAttention | FeedForward)}
    at_zero = model.rating.starts_at_zero
    for module, key in zip(modules, draws(seed, INITIAL_WEIGHTS, num=len(modules)), strict=True):
        if module in at_zero:
            continue
        generator = torch.Generator().manual_seed(int(key >> np.uint64(1)))
        if isinstance(module, nn.Embedding):
            module.weight.normal_(std=_EMBEDDING_STD, generator=generator)
        else:
            bound = module.in_features**-0.5 / (math.sqrt(2 * layers) if module in into_stream else 1)
            module.weight.uniform_(-bound, bound, generator=generator)
