"""The second question after a cut in time: all items that a user watches in the days that follow, from what is known at
the cut."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.schema import PLANNED
from streamfeat.store.histories import HistoryReader
from train.inference.queries import History, stored_histories
from train.terms.watched import Watched

_READ_USERS = 4096  # histories in memory at a time


@dataclass(frozen=True)
class HorizonCases:
    """n users with an event before the cut and p different targets in the days after it."""

    user: NDArray[np.int64]  # (n,) dense ids
    histories: list[History]  # all events before the cut, planned ones included
    past: Watched  # the events of `histories` that have an item target
    row: NDArray[np.int64]  # (p,) the user of each target, 0 to n - 1, ascending
    item: NDArray[np.int64]  # (p,) dense ids, ascending for each user

    def of_items(self, low: int, high: int) -> "HorizonCases":
        """The targets among the items `low` … `high` - 1, and the users who have one."""
        chosen = np.flatnonzero((self.item >= low) & (self.item < high))
        rows, row = np.unique(self.row[chosen], return_inverse=True)
        return HorizonCases(
            self.user[rows], [self.histories[r] for r in rows], self.past.take(rows), row, self.item[chosen]
        )


def read_horizon_cases(
    reader: HistoryReader, num_users: int, start: int, stop: int, batch_users: int
) -> Iterator[HorizonCases]:
    """Yields at most `batch_users` users at a time, of those with an event before `start` and an item target from then
    on, before `stop`; both in seconds since time_origin."""
    for first in range(0, num_users, _READ_USERS):
        stored = reader.read(first, min(first + _READ_USERS, num_users))
        owner = np.repeat(np.arange(len(stored.offsets) - 1), np.diff(stored.offsets))
        num_before = np.bincount(owner[stored.time < start], minlength=len(stored.offsets) - 1)
        asked = (stored.status != PLANNED) & (stored.time >= start) & (stored.time < stop) & (num_before[owner] > 0)
        pairs = np.unique(np.stack((owner[asked], stored.item[asked]), axis=1), axis=0)
        users = np.unique(pairs[:, 0])
        histories, past = stored_histories(stored), Watched.of(stored, num_before)
        for batch in np.split(users, range(batch_users, len(users), batch_users)):
            if len(batch):
                mine = pairs[np.isin(pairs[:, 0], batch)]
                yield HorizonCases(
                    first + batch,
                    [histories[user].first(int(num_before[user])) for user in batch],
                    past.take(batch),
                    np.searchsorted(batch, mine[:, 0]),
                    mine[:, 1],
                )
