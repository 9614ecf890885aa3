"""A baseline that predicts ratings from biases and factors of users and items: a biased SVD.

Funk's SVD, as in Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems" (2009).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.kernels.factors import Factors, descend
from train.baselines.choice import Measure, best_of
from train.terms.ratings import Units
from train.terms.watched import Batches, Watched

NUM_FACTORS = 50
RATE = 0.01
EPOCHS = 40  # the default; where settings are tried on validation, one of `TRIED_EPOCHS`
TRIED_EPOCHS: Sequence[int] = (20, 40, 60)
DAMPINGS: Sequence[float] = (0.07, 0.035, 0.14)  # per rating; the first is the default

_INITIAL_STD = 0.1
_MAX_TUNED = 2_000_000  # ratings: with more, the defaults are used; a fit of one million takes seconds


@dataclass(frozen=True)
class BiasedSVD:
    """Predicts mean + biases + the product of 50 factors of the user and of the item.

    It is fitted by stochastic gradient descent. To predict a rating, it keeps the items' values and fits the user's
    bias and factors again to the given history, by least squares with the same damping. So it also works for users that
    were not in training.
    """

    units: Units
    items: Factors
    epochs: int
    damping: float

    name = family = "biased_svd"

    @property
    def settings(self) -> Mapping[str, float | str]:
        """What was chosen."""
        return {"epochs": self.epochs, "damping": self.damping}

    def predict(self, past: Watched, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """As `Rater.predict`."""
        rated = past.rated()
        left_over = self.units.deviations(rated.item, rated.rating) - self.items.bias[rated.item]
        deviation = self.items.bias[item].astype(np.float64)
        for user, (start, stop) in enumerate(zip(rated.offsets[:-1], rated.offsets[1:], strict=True)):
            if start < stop:
                taste = self._fitted(self._with_one(rated.item[start:stop]), left_over[start:stop])
                deviation[user] += self._with_one(item[user : user + 1])[0] @ taste
        return self.units.ratings(item, deviation)

    def _with_one(self, item: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, factors + 1): the items' factors and a 1 for the user's bias."""
        return np.concatenate((self.items.factors[item], np.ones((len(item), 1))), axis=1, dtype=np.float64)

    def _fitted(self, rows: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The least-squares solution of rows @ x = values. The damping grows with the number of values."""
        damping = self.damping * len(values) * np.eye(rows.shape[1])
        solution: NDArray[np.float64] = np.linalg.solve(rows.T @ rows + damping, rows.T @ values).astype(np.float64)
        return solution


def fit_factors(batches: Batches, units: Units, num_users: int, seed: int, measure: Measure[BiasedSVD]) -> BiasedSVD:
    """The factors with the best damping and number of epochs on validation.

    While it runs, memory holds the factors of all users, 204 bytes each.
    """
    dampings, epochs = DAMPINGS, TRIED_EPOCHS
    if measure is None or sum(int(np.count_nonzero(~np.isnan(batch.rating))) for batch in batches()) > _MAX_TUNED:
        dampings, epochs, measure = DAMPINGS[:1], (EPOCHS,), None
    fitted = (svd for damping in dampings for svd in _descents(batches, units, num_users, seed, damping, epochs))
    return best_of(fitted, measure)


def _descents(
    batches: Batches, units: Units, num_users: int, seed: int, damping: float, epochs: Sequence[int]
) -> Iterator[BiasedSVD]:
    """One descent, as it stands after each number of `epochs`, ascending."""
    rng = np.random.default_rng(seed)
    users, items = (
        Factors(
            np.zeros(num, np.float32),
            rng.standard_normal((num, NUM_FACTORS), np.float32) * np.float32(_INITIAL_STD),
        )
        for num in (num_users, len(units.mean))
    )
    for epoch in range(1, max(epochs) + 1):
        first = 0
        for batch in batches():
            rated = batch.rated()
            here = slice(first, first + rated.num_users)
            first = here.stop
            deviations = units.deviations(rated.item, rated.rating).astype(np.float32)
            theirs = Factors(users.bias[here], users.factors[here])
            descend(rated.offsets, rated.item, deviations, RATE, damping, theirs, items)
        if epoch in epochs:
            yield BiasedSVD(units, Factors(items.bias.copy(), items.factors.copy()), epoch, damping)
