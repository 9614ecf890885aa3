"""One pass of stochastic gradient descent on rating = user bias + item bias + user factors · item factors."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(
    "void(int64[::1], int64[::1], float32[::1], float32, float32, "
    "float32[::1], float32[:, ::1], float32[::1], float32[:, ::1])",
    cache=True,
    nogil=True,
)
def descend(
    offsets: NDArray[np.int64],
    item: NDArray[np.int64],
    rating: NDArray[np.float32],
    rate: float,
    damping: float,
    user_bias: NDArray[np.float32],
    user_factors: NDArray[np.float32],
    item_bias: NDArray[np.float32],
    item_factors: NDArray[np.float32],
) -> None:
    """Every rating once, in order, user u having those at offsets[u]:offsets[u+1]; biases (n,) and factors (n, K)
    are moved in place: by `rate` along the error, damped by `damping`."""
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
