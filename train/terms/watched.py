"""Histories without planned events: what baselines and tables of training events are made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.schema import PLANNED
from streamfeat.store.histories import HeldOut, Histories, HistoryReader

_READ_USERS = 4096  # histories in memory at a time


@dataclass(frozen=True)
class Watched:
    """The events of n users that have an item target. User i has events offsets[i]:offsets[i+1], oldest first."""

    offsets: NDArray[np.int64]  # (n + 1,), from 0
    item: NDArray[np.int64]  # (events,) dense id
    time: NDArray[np.int64]  # (events,) seconds since the schema's time_origin
    rating: NDArray[np.float32]  # (events,) NaN: none

    @classmethod
    def of(cls, histories: Histories, stops: NDArray[np.int64]) -> "Watched":
        """Takes only the first stops[i] events of user i; `stops` (n,)."""
        lengths = np.diff(histories.offsets)
        place = np.arange(len(histories.item)) - np.repeat(histories.offsets[:-1], lengths)
        kept = (place < np.repeat(stops, lengths)) & (histories.status != PLANNED)
        return cls(
            np.append(0, np.cumsum(kept))[histories.offsets],
            histories.item[kept],
            histories.time[kept],
            histories.rating[kept],
        )

    @property
    def num_users(self) -> int:
        """The number of users, n."""
        return len(self.offsets) - 1

    def user(self) -> NDArray[np.int64]:
        """(events,): the user of each event, counted from 0."""
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))

    def take(self, rows: NDArray[np.int64]) -> "Watched":
        """The users `rows`, in that order."""
        starts, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
        offsets = np.append(0, np.cumsum(lengths))
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Watched(offsets, self.item[index], self.time[index], self.rating[index])

    def where(self, kept: NDArray[np.bool_]) -> "Watched":
        """Only the events that `kept` (events,) marks."""
        return Watched(np.append(0, np.cumsum(kept))[self.offsets], self.item[kept], self.time[kept], self.rating[kept])

    def rated(self) -> "Watched":
        """Only the events with a rating."""
        return self.where(~np.isnan(self.rating))

    def last(self, num: int) -> "Watched":
        """At most the `num` most recent events of each user."""
        lengths = np.diff(self.offsets)
        age = np.repeat(self.offsets[1:], lengths) - np.arange(len(self.item))
        return self.where(age <= num)


# Each call reads the training events of all users, some users at a time, in the order of dense user ids.
Batches = Callable[[], Iterator[Watched]]


def read_training(reader: HistoryReader, held_out: HeldOut) -> Iterator[Watched]:
    """The training events with an item target, of all users in order. A held-out user has no training events."""
    num_users = len(held_out.training_events)
    for first in range(0, num_users, _READ_USERS):
        users = slice(first, min(first + _READ_USERS, num_users))
        yield Watched.of(reader.read(users.start, users.stop), held_out.training_events[users])
