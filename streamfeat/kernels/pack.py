"""Places histories one after the other: finds the event of each token of a packing's windows."""

from typing import Any, NamedTuple

import numpy as np
from numba import int64, njit, types, uint32, void
from numpy.typing import NDArray

CLS_SOURCE = -1  # the source of a CLS token


class LaidUsers(NamedTuple):
    """Users with tokens in a packing, in its order: (users,) each."""

    users: NDArray[np.int64]
    crops: NDArray[np.int64]  # the first token of (CLS, event 0, event 1, ...) that is kept
    lengths: NDArray[np.int64]  # tokens


_LAID = types.BaseTuple.from_types([int64[::1]] * 3, LaidUsers)


@njit(void(_LAID, *[int64[::1]] * 2, int64, int64, int64[::1], uint32[::1], int64[::1]), cache=True, nogil=True)
def token_sources(
    laid: LaidUsers,
    starts: NDArray[np.int64],
    first_events: NDArray[np.int64],
    low: int,
    window_len: int,
    sources: NDArray[np.int64],
    out_user: NDArray[np.uint32],
    out_position: NDArray[np.int64],
) -> None:
    """Finds the sources of the tokens low .. low + len(sources) - 1 of a packing's token stream.

    The tokens of history k begin at stream place starts[k]; its event 0 is first_events[k]. Writes source (event, or
    CLS_SOURCE), user and position of each token that belongs to one of these histories. Other tokens stay unchanged.
    """
    users, crops, lengths = laid
    high = low + sources.shape[0]
    for k in range(users.shape[0]):
        begin, end = max(starts[k], low), min(starts[k] + lengths[k], high)
        for t in range(begin, end):
            place = crops[k] + t - starts[k]
            out_user[t - low] = np.uint32(users[k])
            if place == 0:
                sources[t - low] = CLS_SOURCE
                out_position[t - low] = window_len
            else:
                sources[t - low] = first_events[k] + place - 1
                out_position[t - low] = (place - 1) % window_len


@njit(cache=True, nogil=True)
def gather_tokens(values: NDArray[Any], sources: NDArray[np.int64], base: int, cls: Any, out: NDArray[Any]) -> None:
    """out[t] = values[sources[t] - base], or `cls` for a CLS token. Tokens of other events stay unchanged."""
    for t in range(sources.shape[0]):
        source = sources[t]
        if source == CLS_SOURCE:
            out[t] = cls
        elif base <= source < base + values.shape[0]:
            out[t] = values[source - base]
