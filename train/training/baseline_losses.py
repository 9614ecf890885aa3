"""Losses of two baselines, popularity of items and mean rating, on the same validation targets as the model's.

Like the model's, a loss is the mean over users of the mean over a user's targets.
"""

import itertools
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from streamfeat.store.manifest import Manifest
from train.devices.ranks import World
from train.model.targets import Arrays, find_targets, rated_items, task_names
from train.training.progress import Losses
from train.training.validation import UserMeans


def popularity_nats(item_targets: NDArray[np.int64], medium_offsets: tuple[int, ...]) -> NDArray[np.float64]:
    """(V,): -log P of each item within its medium, P = (count + .5) / (sum + .5 · items). `item_targets` (V,) are the
    counts of training."""
    smoothed = item_targets + 0.5
    nats = np.empty(len(item_targets))
    for low, high in itertools.pairwise(medium_offsets):
        nats[low:high] = np.log(smoothed[low:high].sum()) - np.log(smoothed[low:high])
    return nats


def score_baselines(
    batches: Iterable[Arrays],
    manifest: Manifest,
    item_targets: NDArray[np.int64],
    world: World,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Losses, dict[str, int]] | None:
    """Task → loss of its baseline over the validation `batches` of all ranks; and task → users with a target.

    Watch tasks: nats of the popularity of training targets. Rating tasks: squared error of the medium's mean training
    rating. None if `stop` returned True on any rank before the end.
    """
    schema = manifest.data_schema
    nats = popularity_nats(item_targets, schema.medium_offsets)
    rating_mean = {f"{scale.medium}_rating": scale.rating_mean for scale in manifest.scales}
    means = {task: UserMeans() for task in task_names(schema.media)}
    stopped = False
    for arrays in batches:
        if stopped := stop():
            break
        item, rating = rated_items(arrays).reshape(-1), arrays["target_rating"].reshape(-1)
        user = arrays["user"].reshape(-1)
        for task, tokens in find_targets(arrays, schema).items():
            if task in rating_mean:
                losses = (rating[tokens].astype(np.float64) - rating_mean[task]) ** 2
            else:
                losses = nats[item[tokens]]
            means[task].add(losses, user[tokens])
    if world.any(stopped)[0]:
        return None
    results = {task: mean.result(world) for task, mean in means.items()}
    return {task: loss for task, (loss, _) in results.items()}, {task: users for task, (_, users) in results.items()}
