"""Reads `histories.zarr`: the decoded events of a range of users, and how many of them each split uses."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import SplitName
from streamfeat.schema import EVENT_FIELDS
from streamfeat.store.layout import HISTORIES
from streamfeat.store.manifest import Manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.store.tables import read_user_columns


@dataclass(frozen=True)
class Histories:
    """The histories of n users. User i has the events offsets[i] to offsets[i + 1] - 1, oldest first."""

    offsets: NDArray[np.int64]  # (n + 1,), from 0
    item: NDArray[np.int64]  # (events,) dense id
    time: NDArray[np.int64]  # (events,) seconds since the schema's time_origin
    rating: NDArray[np.float32]  # (events,) NaN: none
    status: NDArray[np.uint8]  # (events,) place in schema.STATUSES
    completion: NDArray[np.float32]  # (events,) NaN: none


@dataclass(frozen=True)
class HeldOut:
    """How many first events of each history each split uses, (users,) each. 0: the split does not use the history.

    Split by users: one of the two numbers is the number of all events, the other one 0. `last:2`: `training_events` is
    the place of the validation target, `validation_events` one more; the test event is the last event with an item
    target. A user with too few targets has all events in `training_events`, and 0 in the other. Split by time:
    `training_events` lie before the first cut; the validation target is the first event with an item target between the
    cuts, and `validation_events` is one more than its place. Only a user with training events has one.
    """

    training_events: NDArray[np.int64]
    validation_events: NDArray[np.int64]

    def events_of(self, split: SplitName) -> NDArray[np.int64]:
        """The number of first events that `split` uses."""
        return self.training_events if split == "training" else self.validation_events


def read_held_out(root: str | Path, first_user: int = 0, last_user: int | None = None) -> HeldOut:
    """The numbers of the users `first_user` to `last_user` - 1 (None: to the end) of the dataset `root`.

    Raises DamagedError if `users.parquet` cannot be read.
    """
    columns = read_user_columns(root, ["training_events", "validation_events"], first_user, last_user)
    return HeldOut(*(columns[name].to_numpy() for name in ("training_events", "validation_events")))


class HistoryReader:
    """Reads the histories of a dataset, any range of users at a time. Threads may share it."""

    def __init__(self, root: str | Path, manifest: Manifest) -> None:
        """Opens the histories of the dataset `root`. Raises DamagedError if an array's metadata is damaged."""
        self._schema = manifest.data_schema
        self._opened = contextlib.ExitStack()
        with self._opened:
            self._offsets, *columns = (
                self._opened.enter_context(ArrayReader(root, array, manifest.shard_checksums(array)))
                for array in (f"{HISTORIES}/{name}" for name in ("offsets", *EVENT_FIELDS))
            )
            self._columns = dict(zip(EVENT_FIELDS, columns, strict=True))
            self._opened = self._opened.pop_all()

    def read(self, first_user: int, last_user: int) -> Histories:
        """The histories of the users `first_user` to `last_user` - 1.

        Raises IndexError for users that do not exist, and the errors of `ArrayReader`.
        """
        if not 0 <= first_user <= last_user <= self._schema.num_users:
            raise IndexError(f"users {first_user} to {last_user} of {self._schema.num_users}")
        offsets = self._offsets.read_rows(first_user, last_user + 1)
        first, last = int(offsets[0]), int(offsets[-1])
        stored = {name: reader.read_rows(first, last) for name, reader in self._columns.items()}
        return Histories(
            offsets=offsets - first,
            item=stored["item"].astype(np.int64),
            time=stored["time"].astype(np.int64),
            rating=self._schema.rating.decode(stored["rating"]),
            status=stored["status"],
            completion=self._schema.completion.decode(stored["completion"]),
        )

    def close(self) -> None:
        """Closes all files."""
        self._opened.close()

    def __enter__(self) -> "HistoryReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
