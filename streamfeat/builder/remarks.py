"""What a build says about its data: a user with far too many events, a rating that may mean that there is none."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamfeat.builder.vocabulary import merged_levels
from streamfeat.config import BuildConfig
from streamfeat.events.unrated import is_worth_a_word, levels_apart, told
from streamfeat.progress import Note
from streamfeat.store.array_files import map_arrays, texts_of
from streamfeat.store.receipts import SortedReceipt

# (share of all events, times the mean of the others): a user with both is no person. The largest share in MovieLens-1M
# is .002, in MovieTweetings .003.
_IMPLAUSIBLE = ((0.1, 10), (0.01, 1000))
_FEWEST_USERS = 3
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
    if num_users < _FEWEST_USERS:
        return
    share, times = most / num_events, most * (num_users - 1) / max(num_events - most, 1)
    if any(share >= least and times >= factor for least, factor in _IMPLAUSIBLE):
        yield Note(
            f"user {name!r} has {most:,} of {num_events:,} events ({share:.0%}), {times:,.0f} times as many as the "
            "mean of the others: if this id means that the user is not known, take these rows out, or leave their id "
            "empty",
            warning=True,
        )


def _unrated(root: Path, partitions: Sequence[SortedReceipt], levels: Sequence[float]) -> Iterator[Note]:
    there, rated = dict.fromkeys(levels, 0), 0
    for receipt in partitions:
        ratings = map_arrays(root, receipt.files[0].path)["rating"]
        for level in levels:
            there[level] += int((ratings == np.float32(level)).sum())
        rated += int((~np.isnan(ratings)).sum())
    there = {level: num for level, num in there.items() if is_worth_a_word(level, num / rated)}
    if there:
        others = ", apart from the others" if sum(there.values()) < rated else ""
        counts = " and ".join(
            f"{num:,} of {rated:,} ratings ({num / rated:.1%}) are {level:g}" for level, num in there.items()
        )
        yield Note(
            f"{counts}{others}: if that means that there is no rating, build again with --unrated {told(list(there))} "
            "--overwrite; --unrated none says that it is one",
            warning=True,
        )
