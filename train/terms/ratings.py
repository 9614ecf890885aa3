"""Means of items and biases of users over the training ratings, from which the model's residuals are made."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.residuals import ITEM_DAMPING, RatingTable
from streamfeat.store.manifest import Manifest
from train.terms.watched import Batches, Watched

SWEEPS = 15  # each fits the items' means and then the users' biases
USER_DAMPING = 5.0
MOST_IN_MEMORY = 2**26  # ratings, 8 bytes each; more are read again in every sweep


@dataclass(frozen=True)
class Units:
    """Converts ratings to deviations and back. The arrays are (V,), by dense item id."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, manifest: Manifest) -> "Units":
        """The units of a dataset. A medium whose ratings are all equal has the standard deviation 1."""
        num_items = np.diff(manifest.data_schema.medium_offsets)
        return cls(
            np.repeat([scale.rating_mean for scale in manifest.scales], num_items),
            np.repeat([scale.rating_std for scale in manifest.scales], num_items),
        )

    def deviations(self, item: NDArray[np.int64], rating: NDArray[np.float32]) -> NDArray[np.float64]:
        """The deviations of the ratings `rating` of the items `item`."""
        deviations: NDArray[np.float64] = (rating - self.mean[item]) / self.std[item]
        return deviations

    def ratings(self, item: NDArray[np.int64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ratings of the items `item` with the deviations `deviation`."""
        return self.mean[item] + self.std[item] * deviation


def empty_table(manifest: Manifest) -> RatingTable:
    """The table without any rating."""
    zeros = np.zeros(manifest.num_items, np.float32)
    scales = manifest.scales
    return RatingTable(
        sum_V=zeros,
        num_V=zeros,
        bias_U=np.zeros(manifest.num_users, np.float32),
        mean_M=np.array([scale.rating_mean for scale in scales], np.float32),
        std_M=np.array([scale.rating_std for scale in scales], np.float32),
    )


def rating_table(batches: Batches, manifest: Manifest) -> RatingTable:
    """The table of the training ratings that `batches` reads, of all users in order.

    An item's mean is Σ (deviation - bias of its user) / (n + 5), a user's bias Σ (deviation - mean of its item) /
    (n + 5). They are fitted in turn, 15 times each; the sums are of the last biases. Memory holds the ratings, or the
    biases of all users and one batch if there are more than 2^26.
    """
    units, num_items = Units.of(manifest), manifest.num_items
    read = _rated(batches, units, sum(scale.ratings for scale in manifest.scales) <= MOST_IN_MEMORY)
    num = np.zeros(num_items)
    bias: list[NDArray[np.float64]] = []  # of each batch
    for of in read():
        num += np.bincount(of.item, minlength=num_items)
        bias.append(np.zeros(of.num_users))
    for _ in range(SWEEPS):
        mean = _sums(read(), bias, num_items) / (num + ITEM_DAMPING)
        for index, of in enumerate(read()):
            sums = np.bincount(of.user(), of.deviation - mean[of.item], of.num_users)
            bias[index] = sums / (np.diff(of.offsets) + USER_DAMPING)
    return empty_table(manifest)._replace(
        sum_V=_sums(read(), bias, num_items).astype(np.float32),
        num_V=num.astype(np.float32),
        bias_U=np.concatenate(bias).astype(np.float32),
    )


@dataclass(frozen=True)
class _Rated:
    """The ratings of n users; user i has offsets[i]:offsets[i+1]."""

    offsets: NDArray[np.int64]
    item: NDArray[np.int32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, watched: Watched, units: Units) -> "_Rated":
        rated = watched.rated()
        deviation = units.deviations(rated.item, rated.rating).astype(np.float32)
        return cls(rated.offsets, rated.item.astype(np.int32), deviation)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    def user(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))


def _rated(batches: Batches, units: Units, keep: bool) -> Callable[[], Iterator[_Rated]]:
    if keep:
        kept = [_Rated.of(batch, units) for batch in batches()]
        return lambda: iter(kept)
    return lambda: (_Rated.of(batch, units) for batch in batches())


def _sums(batches: Iterable[_Rated], bias: list[NDArray[np.float64]], num_items: int) -> NDArray[np.float64]:
    """(V,): Σ (deviation - bias of its user)."""
    sums = np.zeros(num_items)
    for of, biases in zip(batches, bias, strict=True):
        sums += np.bincount(of.item, of.deviation - np.repeat(biases, np.diff(of.offsets)), num_items)
    return sums
