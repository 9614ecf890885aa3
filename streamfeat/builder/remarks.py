"""What a build says about its data: a user with far too many events, a rating that may mean that there is none."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamfeat.builder.vocabulary import merged_levels
from streamfeat.config import BuildConfig
from streamfeat.events.remarks import busiest_user, ratings_apart
from streamfeat.events.unrated import levels_apart
from streamfeat.progress import Note
from streamfeat.store.array_files import map_arrays, texts_of
from streamfeat.store.receipts import SortedReceipt

_MOST_RATINGS = 100_000  # distinct ones, of float32: with more it is a measure


def remarks(root: Path, config: BuildConfig, partitions: Sequence[SortedReceipt]) -> Iterator[Note]:
    """Warnings about the sorted histories."""
    yield from _busiest_user(root, partitions)
    if config.unrated == "auto" and (levels := levels_apart(_rating_levels(root, partitions))):
        yield from _unrated(root, partitions, levels)


def _rating_levels(root: Path, partitions: Sequence[SortedReceipt]) -> list[float]:
    """The distinct ratings; [] if there are more than a rating ever has."""
    levels = merged_levels(receipt.facts.rating_levels for receipt in partitions)
    if levels is None:
        found = np.empty(0, np.float32)
        for receipt in partitions:
            found = np.union1d(found, map_arrays(root, receipt.files[0].path)["rating"])
            if len(found) > _MOST_RATINGS:
                return []
        levels = found.tolist()
    return [level for level in levels if not math.isnan(level)]


def _busiest_user(root: Path, partitions: Sequence[SortedReceipt]) -> Iterator[Note]:
    num_events = sum(receipt.facts.events for receipt in partitions)
    num_users = sum(receipt.facts.users for receipt in partitions)
    most, name = 0, ""
    for receipt in partitions:
        arrays = map_arrays(root, receipt.files[0].path)
        events = np.diff(arrays["offsets"])
        if len(events) and events.max() > most:
            most, user = int(events.max()), int(events.argmax())
            name = texts_of(arrays, "raw_id", user, user + 1)[0].as_py()
    yield from busiest_user(name, most, num_events, num_users)


def _unrated(root: Path, partitions: Sequence[SortedReceipt], levels: Sequence[float]) -> Iterator[Note]:
    there, rated = dict.fromkeys(levels, 0), 0
    for receipt in partitions:
        ratings = map_arrays(root, receipt.files[0].path)["rating"]
        for level in levels:
            there[level] += int((ratings == np.float32(level)).sum())
        rated += int((~np.isnan(ratings)).sum())
    yield from ratings_apart(there, rated)
