"""The order of events and which are duplicates: the same in a build and in a history that is asked."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamfeat.errors import DataError
from streamfeat.kernels.sort import kept_starts, mark_duplicates, sort_fractions, sort_histories


class Times(NamedTuple):
    """Times of n events at the resolution of their file."""

    seconds: NDArray[np.int64]  # (n,) Unix seconds, floored
    fraction: NDArray[np.int32] | None  # (n,) nanoseconds after them; None if all are 0


class TooLongHistoryError(DataError):
    """The events of `user`, a number, cannot be sorted."""

    def __init__(self, user: int) -> None:
        self.user = user
        super().__init__(f"user number {user} has too many events over too long a time to be sorted")


def order_events(
    user: NDArray[np.int32], times: Times, item: NDArray[np.int32], num_users: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(order, offsets): the rows to keep, by user and from the oldest on, and where each user's rows begin and end.

    Events of the same moment stay in input order. Of events with the same user, item and moment, the last one is kept.
    `user` (n,) and `item` (n,) are numbers from 0 on. Raises TooLongHistoryError.
    """
    starts = np.zeros(num_users + 1, np.int64)
    order = np.empty(len(user), np.int64)
    if failed := sort_histories(user, times.seconds, starts, order):
        raise TooLongHistoryError(failed - 1)
    if times.fraction is None:
        moments = times.seconds[order]
    else:
        moments = np.empty(len(user), np.int64)
        sort_fractions(times.seconds, times.fraction, starts, order, moments)
    keep = np.empty(len(order), np.uint8)
    mark_duplicates(item[order], moments, starts, keep)
    offsets = np.empty_like(starts)
    kept_starts(starts, keep, offsets)
    return order[keep.view(np.bool_)], offsets


def joined_fractions(fractions: list[NDArray[np.int32] | None], sizes: list[int]) -> NDArray[np.int32] | None:
    """The fractions of consecutive batches of `sizes` rows; None if no batch has any."""
    if all(part is None for part in fractions):
        return None
    pairs = zip(fractions, sizes, strict=True)
    return np.concatenate([np.zeros(size, np.int32) if part is None else part for part, size in pairs])
