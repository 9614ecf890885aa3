"""Baselines that predict ratings: the mean, biases of users and items, and factors of both.

All predict the deviation from the medium's mean training rating, in units of the medium's standard deviation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.factors import Factors, descend
from streamfeat.store.manifest import Manifest
from train.terms.watched import Batches, Watched

DAMPING = 5  # every user and every item starts with so many ratings of deviation 0
SWEEPS = 5  # each fits the item biases and then the user biases

NUM_FACTORS = 50
EPOCHS = 40
RATE = 0.01
FACTOR_DAMPING = 0.07  # per rating
_INITIAL_STD = 0.1


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
            np.repeat([scale.rating_variance**0.5 or 1.0 for scale in manifest.scales], num_items),
        )

    def deviations(self, item: NDArray[np.int64], rating: NDArray[np.float32]) -> NDArray[np.float64]:
        """The deviations of the ratings `rating` of the items `item`."""
        deviations: NDArray[np.float64] = (rating - self.mean[item]) / self.std[item]
        return deviations

    def ratings(self, item: NDArray[np.int64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ratings of the items `item` with the deviations `deviation`."""
        return self.mean[item] + self.std[item] * deviation


class MeanRating:
    """Predicts the mean training rating of the medium."""

    name = "mean_rating"

    def __init__(self, units: Units) -> None:
        self._units = units

    def fit(self, batches: Batches) -> None:
        """Does nothing: the manifest holds the mean."""

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `Rater.predict`."""
        return self._units.ratings(item, np.zeros(len(item)))


class UserItemBias:
    """Predicts mean + bias of the item + bias of the user. The user's bias comes from the given history.

    Each bias is the mean of the deviations minus the other bias, damped by 5 deviations of 0.
    """

    name = "user_item_bias"

    def __init__(self, units: Units) -> None:
        self._units = units

    def fit(self, batches: Batches) -> None:
        """As `Rater.fit`."""
        num_items = len(self._units.mean)
        self._item_bias = np.zeros(num_items)
        user_bias: list[NDArray[np.float64]] = []  # of each batch
        for sweep in range(SWEEPS):
            sums, counts = np.zeros(num_items), np.zeros(num_items)
            for index, batch in enumerate(batches()):
                rated = batch.rated()
                if sweep == 0:
                    user_bias.append(np.zeros(rated.num_users))
                else:
                    user_bias[index] = self._user_bias(rated)
                left_over = self._units.deviations(rated.item, rated.rating) - user_bias[index][rated.user()]
                sums += np.bincount(rated.item, left_over, num_items)
                counts += np.bincount(rated.item, minlength=num_items)
            self._item_bias = sums / (counts + DAMPING)

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `Rater.predict`."""
        return self._units.ratings(item, self._item_bias[item] + self._user_bias(past.rated()))

    def _user_bias(self, rated: Watched) -> NDArray[np.float64]:
        left_over = self._units.deviations(rated.item, rated.rating) - self._item_bias[rated.item]
        sums = np.bincount(rated.user(), left_over, rated.num_users)
        bias: NDArray[np.float64] = sums / (np.diff(rated.offsets) + DAMPING)
        return bias


class BiasedSVD:
    """Predicts mean + biases + the product of 50 factors of the user and of the item (Funk's SVD).

    It is fitted by stochastic gradient descent. To predict a rating, it keeps the items' values and fits the user's
    bias and factors again to the given history, by least squares with the same damping. So it also works for users that
    were not in training.
    """

    name = "biased_svd"

    def __init__(self, units: Units, num_users: int, seed: int) -> None:
        self._units = units
        self._num_users = num_users
        self._seed = seed

    def fit(self, batches: Batches) -> None:
        """As `Rater.fit`. While it runs, memory holds the factors of all users, 204 bytes each."""
        rng = np.random.default_rng(self._seed)
        num_items = len(self._units.mean)
        users, self._items = (
            Factors(
                np.zeros(num, np.float32),
                rng.standard_normal((num, NUM_FACTORS), np.float32) * np.float32(_INITIAL_STD),
            )
            for num in (self._num_users, num_items)
        )
        for _ in range(EPOCHS):
            first = 0
            for batch in batches():
                rated = batch.rated()
                here = slice(first, first + rated.num_users)
                first = here.stop
                deviations = self._units.deviations(rated.item, rated.rating).astype(np.float32)
                theirs = Factors(users.bias[here], users.factors[here])
                descend(rated.offsets, rated.item, deviations, RATE, FACTOR_DAMPING, theirs, self._items)

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `Rater.predict`."""
        rated = past.rated()
        left_over = self._units.deviations(rated.item, rated.rating) - self._items.bias[rated.item]
        deviation = self._items.bias[item].astype(np.float64)
        for user, (start, stop) in enumerate(zip(rated.offsets[:-1], rated.offsets[1:], strict=True)):
            if start < stop:
                taste = _fitted(self._with_one(rated.item[start:stop]), left_over[start:stop])
                deviation[user] += self._with_one(item[user : user + 1])[0] @ taste
        return self._units.ratings(item, deviation)

    def _with_one(self, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, factors + 1): the items' factors and a 1 for the user's bias."""
        return np.concatenate((self._items.factors[item], np.ones((len(item), 1))), axis=1, dtype=np.float64)


def _fitted(rows: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least-squares solution of rows @ x = values. The damping grows with the number of values."""
    damping = FACTOR_DAMPING * len(values) * np.eye(rows.shape[1])
    solution: NDArray[np.float64] = np.linalg.solve(rows.T @ rows + damping, rows.T @ values).astype(np.float64)
    return solution
