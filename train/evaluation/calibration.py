"""Calibration: compares the predicted probability of the likeliest item with how often that item is watched."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15

_DRAWS = 200  # random outcomes that follow the probabilities


@dataclass(frozen=True)
class Bin:
    """The users whose confidence lies from `low` to `high`, both included."""

    users: int
    low: float
    high: float
    confidence: float  # mean probability of the likeliest item
    accuracy: float  # share of users whose target is the likeliest item


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error of the likeliest item, in bins with equal numbers of users, and the bins."""

    error: float
    error_if_calibrated: float  # mean error of outcomes drawn from the probabilities: the part that is chance
    bins: tuple[Bin, ...]


def calibrate(
    confidence_N: NDArray[np.floating], correct_N: NDArray[np.bool_], *, num_bins: int = NUM_BINS, seed: int = 0
) -> Calibration:
    """The error is Σ over bins of users / N · |accuracy - mean confidence|.

    Takes for each of N ≥ 1 users the probability of the likeliest item and whether that item was the target. Bins hold
    equal numbers of users, except that users with equal confidences all go to the bin of the first of them.
    """
    order = np.argsort(confidence_N, kind="stable")
    confidence, correct = confidence_N[order].astype(np.float64), correct_N[order].astype(np.float64)
    bin_N = _bins(confidence, num_bins)
    users = np.bincount(bin_N)
    sums = np.bincount(bin_N, confidence)
    hits = np.bincount(bin_N, correct)
    first = np.cumsum(users) - users
    bins = tuple(
        Bin(int(n), float(confidence[at]), float(confidence[at + n - 1]), float(total / n), float(hit / n))
        for n, at, total, hit in zip(users, first, sums, hits, strict=True)
    )
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(bin_N, rng.random(len(confidence)) < confidence) for _ in range(_DRAWS)]
    return Calibration(
        error=float(np.abs(hits - sums).sum() / len(confidence)),
        error_if_calibrated=float(np.abs(np.array(drawn) - sums).sum(1).mean() / len(confidence)),
        bins=bins,
    )


def _bins(ascending_N: NDArray[np.float64], num_bins: int) -> NDArray[np.int64]:
    """(N,): the bin of each user; the numbers have no gaps."""
    num = len(ascending_N)
    bin_N = np.arange(num) * min(num_bins, num) // num
    is_first = np.append(True, ascending_N[1:] != ascending_N[:-1])
    run_starts = np.maximum.accumulate(np.where(is_first, np.arange(num), 0))
    return np.unique(bin_N[run_starts], return_inverse=True)[1]
