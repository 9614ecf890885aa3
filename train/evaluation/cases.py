"""The cases of an evaluation: a history and the event after it. They are read from a dataset, some users at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.schema import PLANNED
from streamfeat.store.histories import HeldOut, Histories, HistoryReader
from train.inference.queries import History, stored_history
from train.terms.watched import Watched

_READ_USERS = 4096  # histories in memory at a time


@dataclass(frozen=True)
class Cases:
    """One target for each of n users, and the events before it."""

    user: NDArray[np.int64]  # (n,) dense ids
    item: NDArray[np.int64]  # (n,) dense id of the target
    time: NDArray[np.int64]  # (n,) seconds since time_origin
    rating: NDArray[np.float32]  # (n,) NaN: none
    tied: NDArray[np.bool_]  # (n,) whether the event before or after the target has the same timestamp
    histories: list[History]  # all events before the target, planned ones included
    past: Watched  # the events of `histories` that have an item target

    def take(self, rows: NDArray[np.int64]) -> "Cases":
        """The users `rows`, in that order."""
        return Cases(
            self.user[rows],
            self.item[rows],
            self.time[rows],
            self.rating[rows],
            self.tied[rows],
            [self.histories[row] for row in rows],
            self.past.take(rows),
        )

    def of_items(self, low: int, high: int) -> "Cases":
        """The users whose target is one of the items `low` … `high` - 1."""
        return self.take(np.flatnonzero((self.item >= low) & (self.item < high)))

    def rated_rows(self) -> NDArray[np.int64]:
        """The users whose target has a rating."""
        return np.flatnonzero(~np.isnan(self.rating))


def read_cases(
    reader: HistoryReader, held_out: HeldOut, batch_users: int, test_start: int | None = None
) -> Iterator[tuple[Cases, int]]:
    """Yields the cases of at most `batch_users` users with held-out events, and the number of these users.

    The target is a user's last event with an item target. With `test_start`, seconds since time_origin, it is the first
    one from then on, of users who have an event before. A user without such an event gives no case.
    """
    chosen = np.flatnonzero(held_out.validation_events > 0)
    if test_start is not None:
        chosen = np.arange(len(held_out.validation_events))
    for first in range(0, len(held_out.validation_events), _READ_USERS):
        users = chosen[(chosen >= first) & (chosen < first + _READ_USERS)]
        if not len(users):
            continue
        start = int(users[0])
        stored = reader.read(start, int(users[-1]) + 1)
        places = last_targets(stored) if test_start is None else first_targets(stored, test_start)
        if test_start is not None:
            users = users[places[users - start] >= 0]
        for batch in np.split(users, range(batch_users, len(users), batch_users)):
            if len(batch):
                rows = batch - start
                yield _cases(stored, start, rows[places[rows] >= 0], places, held_out.training_events), len(batch)


def read_validation_cases(
    reader: HistoryReader, held_out: HeldOut, users: NDArray[np.int64], batch_users: int
) -> Iterator[Cases]:
    """Yields the validation cases of `users`, ascending ids, at most `batch_users` at a time.

    The target is the user's validation event; of a user who is held out as a whole it is the last but one event with an
    item target, so no test event is seen. A user without such an event gives no case.
    """
    for first in range(0, len(held_out.validation_events), _READ_USERS):
        here = users[(users >= first) & (users < first + _READ_USERS)]
        if not len(here):
            continue
        read = slice(int(here[0]), int(here[-1]) + 1)
        stored = reader.read(read.start, read.stop)
        places = validation_targets(stored, held_out.training_events[read], held_out.validation_events[read])
        rows = here - read.start
        rows = rows[places[rows] >= 0]
        for batch in np.split(rows, range(batch_users, len(rows), batch_users)):
            if len(batch):
                yield _cases(stored, read.start, batch, places, held_out.training_events)


def last_targets(stored: Histories) -> NDArray[np.int64]:
    """(n,): the place among `stored` of each user's last event with an item target; -1 without one."""
    targets = np.flatnonzero(stored.status != PLANNED)
    before = np.searchsorted(targets, stored.offsets)
    return np.where(np.diff(before) > 0, np.append(targets, -1)[before[1:] - 1], -1)


def first_targets(stored: Histories, since: int) -> NDArray[np.int64]:
    """(n,): the place among `stored` of each user's first event with an item target from `since` on; -1 without one,
    and for users who have no event before `since`."""
    targets = np.flatnonzero((stored.status != PLANNED) & (stored.time >= since))
    before = np.searchsorted(targets, stored.offsets)
    known = np.append(stored.time, since)[stored.offsets[:-1]] < since
    return np.where(known & (np.diff(before) > 0), np.append(targets, -1)[before[:-1]], -1)


def validation_targets(
    stored: Histories, training_events: NDArray[np.int64], validation_events: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(n,): the place among `stored` of each user's validation target, as `read_validation_cases` says; -1 without one.

    `training_events` and `validation_events` (n,) are those of `HeldOut`.
    """
    targets = np.flatnonzero(stored.status != PLANNED)
    before = np.searchsorted(targets, stored.offsets)
    last_but_one = np.where(np.diff(before) > 1, np.append(targets, [-1, -1])[before[1:] - 2], -1)
    asked = np.where(training_events > 0, stored.offsets[:-1] + validation_events - 1, last_but_one)
    return np.where(validation_events > 0, asked, -1)


def _cases(
    stored: Histories,
    first_user: int,
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    training_events: NDArray[np.int64],
) -> Cases:
    """The cases of the users `rows`. `places` (n,) are the places of all users' targets among `stored`;
    `training_events` are those of `HeldOut`, of all users of the dataset."""
    starts, stops, place = stored.offsets[rows], stored.offsets[rows + 1], places[rows]
    # For the first and the last event, the missing neighbour gets a time that differs by a second: no tie.
    previous = np.where(place > starts, stored.time[place - 1], stored.time[place] - 1)
    following = np.where(place + 1 < stops, stored.time[np.minimum(place + 1, stops - 1)], stored.time[place] + 1)
    counts = np.zeros(len(stored.offsets) - 1, np.int64)  # events before the target; 0 for users without a case
    counts[rows] = place - starts
    user = first_user + rows
    bounds = zip(starts.tolist(), place.tolist(), user.tolist(), training_events[user].tolist(), strict=True)
    return Cases(
        user=user,
        item=stored.item[place],
        time=stored.time[place],
        rating=stored.rating[place],
        tied=(previous == stored.time[place]) | (following == stored.time[place]),
        histories=[stored_history(stored, slice(start, stop), of, known) for start, stop, of, known in bounds],
        past=Watched.of(stored, counts).take(rows),
    )
