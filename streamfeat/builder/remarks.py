"""What a build says about its data: a user with far too many events, a rating that may mean that there is none."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamfeat.builder.vocabulary import merged_levels
from streamfeat.config import BuildConfig
from streamfeat.events.unrated import is_worth_a_word, level_apart
from streamfeat.progress import Note
from streamfeat.store.array_files import map_arrays, texts_of
from streamfeat.store.receipts import SortedReceipt

# (share of all events, times the mean of the others): a user with both is no person. The largest share in MovieLens-1M
# is .002, in MovieTweetings .003.
_IMPLAUSIBLE = ((0.1, 10), (0.01, 1000))
_FEWEST_USERS = 3


def remarks(root: Path, config: BuildConfig, partitions: Sequence[SortedReceipt]) -> Iterator[Note]:
    """Warnings about the sorted histories."""
    yield from _busiest_user(root, partitions)
    levels = merged_levels(receipt.facts.rating_levels for receipt in partitions)
    level = level_apart([level for level in levels or () if not math.isnan(level)])
    if level is not None and config.unrated == "auto":
        yield from _unrated(root, partitions, level)


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


def _unrated(root: Path, partitions: Sequence[SortedReceipt], level: float) -> Iterator[Note]:
    there = rated = 0
    for receipt in partitions:
        ratings = map_arrays(root, receipt.files[0].path)["rating"]
        there += int((ratings == np.float32(level)).sum())
        rated += int((~np.isnan(ratings)).sum())
    others = ", apart from the others" if there < rated else ""
    if is_worth_a_word(level, there / rated):
        yield Note(
            f"{there:,} of {rated:,} ratings ({there / rated:.1%}) are {level:g}{others}: if that means "
            f"that there is no rating, build again with --unrated {level:g} --overwrite; --unrated none says that it "
            "is one",
            warning=True,
        )
