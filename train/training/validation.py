"""The validation loss of each task: the mean over users of the mean over the user's targets."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamfeat.store.manifest import Manifest
from streamfeat.stream.stream import WindowStream
from train.config import TrainConfig
from train.devices.device import autocast
from train.devices.ranks import World
from train.model.batch import BatchFacts, to_batch
from train.model.targets import Arrays, task_names
from train.model.transformer import EventTransformer
from train.training.mixtures import MixtureTrial
from train.training.progress import Losses
from train.training.update import micro_batches


@dataclass
class UserMeans:
    """The losses of one task, summed per user over windows, so that every user has the same weight."""

    _users: list[NDArray[np.int64]] = field(default_factory=list)
    _sums: list[NDArray[np.float64]] = field(default_factory=list)
    _counts: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, losses: NDArray[Any], user: NDArray[Any]) -> None:
        """Adds the losses (n,) of targets and their users (n,)."""
        users, index = np.unique(user, return_inverse=True)
        self._users.append(users.astype(np.int64))
        self._sums.append(np.bincount(index, losses.astype(np.float64), len(users)).astype(np.float64))
        self._counts.append(np.bincount(index, minlength=len(users)))

    def result(self, world: World) -> tuple[float | None, int]:
        """The mean over the users of all ranks (None without users), and the number of users."""
        empty = np.empty(0, np.int64)
        users, sums, counts = (
            world.concatenated(np.concatenate(parts or [empty.astype(dtype)]))
            for parts, dtype in ((self._users, np.int64), (self._sums, np.float64), (self._counts, np.int64))
        )
        if not len(users):
            return None, 0
        users, index = np.unique(users, return_inverse=True)
        means = np.bincount(index, sums, len(users)) / np.bincount(index, counts, len(users))
        return float(means.mean()), len(users)


def validation_batches(dataset: Path, manifest: Manifest, config: TrainConfig, world: World) -> Generator[Arrays]:
    """This rank's share of the validation split, once: packing 0 with the masks of epoch 0, the same in every call."""
    if not manifest.splits["validation"].windows:
        return
    with WindowStream(
        dataset,
        objective=config.objective,
        mask_policy=config.mask_policy,
        batch_windows=config.batch_windows(manifest.data_schema.window_len),
        seed=config.seed,
        split="validation",
        rank=world.rank,
        world_size=world.size,
        threads=config.threads,
    ) as stream:
        yield from stream


def validate(
    model: EventTransformer,
    batches: Iterable[Arrays],
    facts: BatchFacts,
    micro_windows: int,
    world: World,
    *,
    trial: MixtureTrial | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Losses | None:
    """The loss of every task over the `batches` of all ranks. None if `stop` returned True on any rank before the end.
    Adds targets to `trial`. Leaves the model in training mode."""
    means = {task: UserMeans() for task in task_names(facts.schema.media)}
    stopped = False
    model.eval()
    try:
        for number, arrays in enumerate(batches):
            if stopped := stop():
                break
            for rows in micro_batches(arrays, micro_windows):
                batch = to_batch(arrays, rows, facts, world.device, split="validation")
                with torch.no_grad(), autocast(world.device):
                    state_ND = model(batch).flatten(0, 1)
                    found = model.target_losses(batch, state_ND)
                if trial is not None and number % trial.every == 0:
                    trial.add(model, state_ND, batch, {name: array[rows] for name, array in arrays.items()})
                for task, (losses, user) in found.items():
                    means[task].add(losses.numpy(), user.numpy())
    finally:
        model.train()
    if world.any(stopped)[0]:
        return None
    return {task: mean.result(world)[0] for task, mean in means.items()}
