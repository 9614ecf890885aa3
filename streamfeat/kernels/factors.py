"""One pass of stochastic gradient descent on rating = user bias + item bias + user factors · item factors."""

from typing import NamedTuple

import numpy as np
from numba import float32, int64, njit, types, void
from numpy.typing import NDArray


class Factors(NamedTuple):
    """The fitted values of n users or items."""

    bias: NDArray[np.float32]  # (n,)
    factors: NDArray[np.float32]  # (n, K)


_FACTORS = types.BaseTuple.from_types([float32[::1], float32[:, ::1]], Factors)


@njit(void(int64[::1], int64[::1], float32[::1], float32, float32, _FACTORS, _FACTORS), cache=True, nogil=True)
def descend(
    offsets: NDArray[np.int64],
    item: NDArray[np.int64],
    rating: NDArray[np.float32],
    rate: float,
    damping: float,
    users: Factors,
    items: Factors,
) -> None:
    """Takes every rating once, in order; user u has the ratings offsets[u]:offsets[u+1]. Updates biases and factors in
    place with the learning rate `rate` and the damping `damping`."""
    user_bias, user_factors = users
    item_bias, item_factors = items
    for u in range(offsets.shape[0] - 1):
        for e in range(offsets[u], offsets[u + 1]):
            i = item[e]
            predicted = user_bias[u] + item_bias[i]
            for k in range(user_factors.shape[1]):
                predicted += user_factors[u, k] * item_factors[i, k]
            error = rating[e] - predicted
            user_bias[u] += rate * (error - damping * user_bias[u])
            item_bias[i] += rate * (error - damping * item_bias[i])
            for k in range(user_factors.shape[1]):
                of_user, of_item = user_factors[u, k], item_factors[i, k]
                user_factors[u, k] += rate * (error * of_item - damping * of_user)
                item_factors[i, k] += rate * (error * of_user - damping * of_item)
