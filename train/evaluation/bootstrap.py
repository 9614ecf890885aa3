"""How much a figure depends on the choice of users: the bootstrap over users.

Axes: N users, F figures, R resamples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95

_MAX_COUNTS = 2**22  # counts of resampled users that are held at a time


@dataclass(frozen=True)
class Figure:
    """A figure and its 95% interval over resampled users."""

    value: float
    low: float
    high: float


def bootstrap_means(values_NF: NDArray[np.floating], num: int, seed: int) -> NDArray[np.float64]:
    """(R, F): the means over users of `num` resamples. Each resample draws N ≥ 1 users with replacement.

    The drawn users are a function of (seed, resample, N). Two figures of the same users are resampled with the same
    users, so the difference of their results is the paired bootstrap of the difference.
    """
    num_users = len(values_NF)
    rng = np.random.default_rng(seed)
    means = np.empty((num, values_NF.shape[1]))
    step = max(1, _MAX_COUNTS // num_users)
    for first in range(0, num, step):
        size = min(step, num - first)
        drawn = rng.integers(0, num_users, (size, num_users)) + num_users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means[first : first + size] = counts @ values_NF / num_users
    return means


def with_intervals(means_F: NDArray[np.float64], resampled_RF: NDArray[np.float64]) -> list[Figure]:
    """Each figure with the two percentiles that enclose the share `CONFIDENCE` of its resamples."""
    tail = (1 - CONFIDENCE) / 2
    low_F, high_F = np.quantile(resampled_RF, (tail, 1 - tail), axis=0)
    return [Figure(*map(float, bounds)) for bounds in zip(means_F, low_F, high_F, strict=True)]
