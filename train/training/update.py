"""One optimizer update: the loss of a global batch, its gradient in micro-batches, and the step.

Loss sums are divided by the weight sums of the whole global batch. All ranks know them before the first micro-batch, so
the loss is the same for any number of micro-batches and ranks.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfeat.kernels.draws import DROPOUT, draws
from streamfeat.store.manifest import Manifest
from train.config import TrainConfig
from train.devices.device import autocast
from train.devices.ranks import World, without_sync
from train.model.batch import Batch, BatchFacts, to_batch
from train.model.targets import Arrays, weight_sums
from train.model.transformer import EventTransformer
from train.terms.terms import Terms
from train.training.average import WeightAverage
from train.training.optim import clip_gradients, make_optimizer, set_learning_rate
from train.training.progress import Losses
from train.training.schedule import Schedule, learning_rate


@dataclass(frozen=True)
class Update:
    """The result of one update."""

    losses: Losses  # by task, unscaled
    loss: float | None
    learning_rate: float
    gradient_norm: float | None = None  # before clipping; None without a target
    not_finite: dict[str, str] = field(default_factory=dict)  # task or `gradient` → nan, inf or -inf

    @property
    def finite(self) -> bool:
        """Whether loss and gradient were finite. If not, the update was not applied."""
        return not self.not_finite


@dataclass(frozen=True)
class Prepared:
    """This rank's share of a step's global batch, with all work that the host can do before the step."""

    step: int  # from 0
    window: NDArray[np.int64]  # (rows,): numbers of the windows; -1 for an empty slot
    weights: list[float]  # by task: sum over this rank's targets
    num_micro: int  # number of micro-batches, at least one
    batches: Iterator[Batch]  # micro-batches on the device; the first is made before the step, the others during it


class Replica(nn.Module):
    """The module that every rank runs on its micro-batches: it joins the model's loss sums into one scaled loss."""

    def __init__(self, model: EventTransformer, scales: dict[str, float], device: torch.device) -> None:
        super().__init__()
        self.model = model
        # DistributedDataParallel searches for unused parameters and warns if there are none. This one is never used.
        self.unused = nn.Parameter(torch.zeros((), device=device))
        self._scales = scales
        self._loss_sums: Callable[[Batch], dict[str, Tensor]] = model.loss_sums
        if device.type == "cuda":
            self._loss_sums = torch.compile(model.loss_sums)

    def forward(self, batch: Batch, divisors: dict[str, float]) -> tuple[Tensor, Tensor]:
        """The scaled loss () and the loss sums (tasks,), without gradient, of the tasks in `divisors`."""
        sums = self._loss_sums(batch)
        total = torch.stack([sums[task] / (divisor * self._scales[task]) for task, divisor in divisors.items()]).sum()
        return total, torch.stack([sums[task].detach() for task in divisors])


class Updater:
    """A model in training, with its optimizer."""

    def __init__(
        self,
        model: EventTransformer,
        manifest: Manifest,
        config: TrainConfig,
        schedule: Schedule,
        world: World,
        terms: Terms | None = None,
    ) -> None:
        self.model = model
        self.optimizer = make_optimizer(model, config)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self.config = config
        self.schedule = schedule
        self.facts = BatchFacts.of(manifest, config, terms).on_device(world.device)
        if self.facts.popularity:
            self.facts.popularity.make()  # training asks for all rows, and their memory is counted before it
        self.scales = task_scales(manifest)
        self.micro_windows = config.micro_batch_windows(manifest.data_schema.window_len, world.size)
        self.world, self.device = world, world.device
        self._replica = world.replicated(Replica(model, self.scales, world.device))

    def prepare(self, arrays: Arrays, step: int) -> Prepared:
        """Does the host's work for update `step` (from 0). `arrays` are this rank's share of the global batch; they are
        read until the last micro-batch is made."""
        micro = micro_batches(arrays, self.micro_windows) or [slice(0, self.micro_windows)]
        batches = (to_batch(arrays, rows, self.facts, self.device, step=step) for rows in micro)
        return Prepared(
            step=step,
            window=arrays["window"].copy(),
            weights=list(weight_sums(arrays, self.facts.schema).values()),
            num_micro=len(micro),
            batches=itertools.chain([next(batches)], batches),
        )

    def apply(self, prepared: Prepared, meanwhile: Callable[[], None] = lambda: None) -> Update:
        """Does one update. A batch without targets changes nothing.

        `meanwhile` is called when the device has all its work and the arrays are no longer read, so that the host can
        prepare the next batch at the same time.
        """
        rate = self.rate_of(prepared.step)
        weights = self.world.sum(prepared.weights)
        divisors = {task: total for task, total in zip(self.scales, weights, strict=True) if total}
        losses: Losses = dict.fromkeys(self.scales)
        if not divisors:
            return Update(losses, None, rate)
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            _seed_native_dropout(self.config.seed, prepared.step, self.world.rank)
        batches = prepared.batches
        with self.world.watched():
            with without_sync(self._replica):
                sums = [self._backward(next(batches), divisors) for _ in range(prepared.num_micro - 1)]
            # The last pass of every rank exchanges gradients, even if the rank has no target.
            sums.append(self._backward(next(batches), divisors))
            norm = clip_gradients(self.model, self.model.rating, self.config.clip)
            meanwhile()
            *totals, norm_value = self._on_host(sums, norm)
        losses |= {task: total / divisors[task] for task, total in zip(divisors, self.world.sum(totals), strict=True)}
        figures = {task: losses[task] for task in divisors} | {"gradient": norm_value}
        not_finite = {name: str(x) for name, x in figures.items() if x is not None and not math.isfinite(x)}
        if not_finite:
            return Update(finite_or_none(losses), None, rate, norm_value, not_finite)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        if self.average:
            self.average.follow(self.model, prepared.step)
        return Update(losses, scaled_sum(losses, self.scales), rate, norm_value)

    def rehearse(self, arrays: Arrays) -> None:
        """The pass of one micro-batch, forward and backward, with all of its gradients at once. No rank waits for
        another, and nothing stays of it."""
        weights = weight_sums(arrays, self.facts.schema)
        divisors = {task: total for task, total in weights.items() if total}
        if not divisors:
            return
        generators = [self.device] if self.device.type == "cuda" else []
        try:
            for parameter in self.model.parameters():  # as from the second pass of a step on
                parameter.grad = torch.zeros_like(parameter)
            with torch.random.fork_rng(generators), without_sync(self._replica):
                batch = to_batch(arrays, slice(0, len(arrays["window"])), self.facts, self.device)
                self._backward(batch, divisors)
        finally:
            self.optimizer.zero_grad()

    @property
    def average_model(self) -> EventTransformer | None:
        """The model of averaged weights, which is validated and saved as the model; None where no average is kept."""
        return self.average.model if self.average else None

    def rate_of(self, step: int) -> float:
        """The learning rate of update `step` (from 0)."""
        return learning_rate(self.config, self.schedule, step)

    def _backward(self, batch: Batch, divisors: dict[str, float]) -> Tensor:
        """Adds the gradients of one micro-batch. Returns its loss sums (tasks,) in the order of `divisors`."""
        with autocast(self.device):
            total: Tensor
            sums: Tensor
            total, sums = self._replica(batch, divisors)
        # DistributedDataParallel averages gradients over ranks, but the loss is their sum.
        (total * self.world.size).backward()  # type: ignore[no-untyped-call]
        return sums

    def _on_host(self, sums: list[Tensor], norm: Tensor) -> list[float]:
        """The total loss sums in float64, then the norm. In a step the host waits for the device only here."""
        totals = torch.stack(sums).double().sum(0)
        values: list[float] = torch.cat((totals, norm.double().reshape(1))).tolist()
        return values


def _seed_native_dropout(seed: int, step: int, rank: int) -> None:
    """Seeds torch's generator, from which its own dropout draws, so that a resumed run gets the same masks."""
    torch.cuda.manual_seed(int(draws(seed, DROPOUT, step, first=rank, num=1)[0] >> np.uint64(1)))


def task_scales(manifest: Manifest) -> dict[str, float]:
    """Task → the divisor of its loss: entropy of popularity, or variance of ratings; 1 if that is 0."""
    scales = {}
    for medium in manifest.scales:
        scales[f"{medium.medium}_watch"] = medium.watch_entropy or 1.0
        scales[f"{medium.medium}_rating"] = medium.rating_variance or 1.0
    return scales


def scaled_sum(losses: Losses, scales: dict[str, float]) -> float | None:
    """Σ task loss / scale over the tasks that have a loss. None if no task has one; not finite if one loss is not."""
    terms = [loss / scales[task] for task, loss in losses.items() if loss is not None]
    return sum(terms) if terms else None


def scaled_watch_mean(losses: Losses, scales: dict[str, float]) -> float | None:
    """The mean of loss / scale over the watch tasks that have a loss; None where none has."""
    terms = [loss / scales[task] for task, loss in losses.items() if loss is not None and task.endswith("_watch")]
    return sum(terms) / len(terms) if terms else None


def finite_or_none(losses: Losses) -> Losses:
    """`losses` for reports: None replaces values that are not finite."""
    return {task: loss if loss is not None and math.isfinite(loss) else None for task, loss in losses.items()}


def micro_batches(arrays: Arrays, num_windows: int) -> list[slice]:
    """The rows of a batch, `num_windows` at a time; slices without any target are left out."""
    found = []
    for first in range(0, len(arrays["window"]), num_windows):
        rows = slice(first, min(first + num_windows, len(arrays["window"])))
        if arrays["weight_item"][rows].any() or arrays["weight_rating"][rows].any():
            found.append(rows)
    return found
