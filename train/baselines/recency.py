"""The weights of a history's events: they halve with every so many events before the last one."""

import math

import numpy as np
from numpy.typing import NDArray

from train.terms.watched import Watched

_HALVINGS = 64 / 3  # an event is left out if its weight is below 2^-21


def recent_events(past: Watched, half_life: float) -> tuple[Watched, NDArray[np.float64]]:
    """The most recent events of each user, and their weights (events,), which add up to 1 for each user.

    `half_life` is in events; infinity weighs all events equally.
    """
    recent = past if math.isinf(half_life) else past.last(math.ceil(_HALVINGS * half_life))
    lengths = np.diff(recent.offsets)
    age = np.repeat(recent.offsets[1:], lengths) - 1 - np.arange(len(recent.item))
    weights = np.exp2(-age / half_life)
    sums = np.bincount(recent.user(), weights, recent.num_users)
    shares: NDArray[np.float64] = weights / np.repeat(sums, lengths)
    return recent, shares
