"""The likeliest items of a medium for many histories, with P(watch at t) and predicted ratings.

Axes: N histories, K items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from streamfeat.store.manifest import Manifest
from train.inference.queries import History
from train.inference.scorer import Scorer

_MOST_USERS = 256
_MOST_LOGITS = 2**24  # 64 MB


@dataclass(frozen=True)
class Best:
    """The likeliest items, best first; equally likely items by ascending id."""

    items: NDArray[np.int64]  # (N, K) dense ids; -1 at the end of a row that has fewer items
    probabilities: NDArray[np.float32]  # (N, K)
    ratings: NDArray[np.float32] | None  # (N, K); None if training had no rating of the medium


def best_items(
    scorer: Scorer,
    histories: Sequence[History],
    times: Sequence[int],
    medium: int,
    k: int,
    *,
    seen: bool,
    chosen: NDArray[np.int64] | None = None,
) -> Best:
    """The `k` likeliest items of a medium (all items if there are fewer) for each history at its time, in seconds
    since time_origin.

    With `chosen` (ascending ids inside the medium), only these items are ranked; their probabilities stay the same.
    With `seen`, items of the history may be recommended, and P is over all items of the medium. Otherwise P is as in
    training.
    """
    low, high = scorer.manifest.data_schema.medium_offsets[medium : medium + 2]
    states = scorer.states(histories, times, medium)
    log_probs = scorer.log_probs(states, medium, histories, times, exclude_seen=False if seen else None)
    if not seen and not scorer.exclude_seen:
        log_probs[scorer.seen(histories, medium)] = -torch.inf
    ids = torch.arange(high - low) if chosen is None else torch.from_numpy(chosen)
    if chosen is not None:
        log_probs = log_probs[:, ids.to(scorer.device)]
    value, place = log_probs.topk(min(k, len(ids)))
    items, probabilities, left = ids[place.cpu()], value.exp().cpu().numpy(), ~value.isneginf().cpu().numpy()
    order = np.lexsort((items.numpy(), -probabilities, ~left))
    items = items.gather(1, torch.from_numpy(order))
    rated = scorer.manifest.scales[medium].ratings > 0
    return Best(
        items=np.where(np.take_along_axis(left, order, 1), items.numpy() + low, -1),
        probabilities=np.take_along_axis(probabilities, order, 1),
        ratings=scorer.ratings(histories, times, states, medium, items).cpu().numpy() if rated else None,
    )


def batch_users(manifest: Manifest) -> int:
    """The number of users to score at a time. It limits the memory of their logits."""
    largest = max(1, *np.diff(manifest.data_schema.medium_offsets).tolist())
    return max(1, min(_MOST_USERS, _MOST_LOGITS // largest))
