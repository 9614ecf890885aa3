"""Baselines that predict ratings: the mean, and biases of users and items.

All predict the deviation from the medium's mean training rating, in units of the medium's standard deviation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.baselines.choice import Measure, best_of
from train.terms.ratings import Units
from train.terms.watched import Batches, Watched

# Every user and every item starts with so many ratings of deviation 0. Tried on validation; the first is the default.
DAMPINGS = (5.0, 1.0, 2.0, 10.0, 25.0)
SWEEPS = 5  # each fits the item biases and then the user biases


@dataclass(frozen=True)
class MeanRating:
    """Predicts the mean training rating of the medium, which the manifest holds."""

    units: Units

    name = family = "mean_rating"

    @property
    def settings(self) -> Mapping[str, float | str]:
        """None."""
        return {}

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `Rater.predict`."""
        return self.units.ratings(item, np.zeros(len(item)))


@dataclass(frozen=True)
class UserItemBias:
    """Predicts mean + bias of the item + bias of the user. The user's bias comes from the given history.

    Each bias is the mean of the deviations minus the other bias, damped by `damping` deviations of 0.
    """

    units: Units
    damping: float
    item_bias: NDArray[np.float64]  # (V,)

    name = family = "user_item_bias"

    @classmethod
    def swept(cls, batches: Batches, units: Units, damping: float) -> "UserItemBias":
        """Reads the training events once for each of `SWEEPS`."""
        num_items = len(units.mean)
        biases = cls(units, damping, np.zeros(num_items))
        for sweep in range(SWEEPS):
            sums, counts = np.zeros(num_items), np.zeros(num_items)
            for batch in batches():
                rated = batch.rated()
                left_over = units.deviations(rated.item, rated.rating)
                if sweep:
                    left_over -= biases.user_bias(rated)[rated.user()]
                sums += np.bincount(rated.item, left_over, num_items)
                counts += np.bincount(rated.item, minlength=num_items)
            biases = cls(units, damping, sums / (counts + damping))
        return biases

    @property
    def settings(self) -> Mapping[str, float | str]:
        """What was chosen."""
        return {"damping": self.damping}

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `Rater.predict`."""
        return self.units.ratings(item, self.item_bias[item] + self.user_bias(past.rated()))

    def user_bias(self, rated: Watched) -> NDArray[np.float64]:
        """(n,): the biases of users with the ratings `rated`."""
        left_over = self.units.deviations(rated.item, rated.rating) - self.item_bias[rated.item]
        sums = np.bincount(rated.user(), left_over, rated.num_users)
        bias: NDArray[np.float64] = sums / (np.diff(rated.offsets) + self.damping)
        return bias


def fit_biases(batches: Batches, units: Units, measure: Measure[UserItemBias]) -> UserItemBias:
    """The biases with the best damping on validation."""
    return best_of((UserItemBias.swept(batches, units, damping) for damping in DAMPINGS), measure)
