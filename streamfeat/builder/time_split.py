"""The split by time: finds its two cuts, and what of every history lies before, between and after them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import BuildConfig
from streamfeat.errors import DataError
from streamfeat.kernels.sort import count_ties_and_repeats
from streamfeat.plain_text import date_text
from streamfeat.schema import PLANNED
from streamfeat.store.array_files import map_arrays
from streamfeat.store.histories import HeldOut
from streamfeat.store.manifest import TimeSplit
from streamfeat.store.receipts import SortedReceipt

_AGAIN = "and build with --overwrite"  # the folder holds the unfinished build
_BINS = 2**16  # two passes find an event's time in a range of 136 years


@dataclass(frozen=True)
class Cuts:
    """The Unix seconds at which validation and the test begin. An event at a cut lies after it."""

    validation: int
    test: int


def find_cuts(root: Path, config: BuildConfig, partitions: Sequence[SortedReceipt]) -> Cuts | None:
    """The cuts of a split by time among the events of `partitions`; None for another split.

    Shares count events in the order of time. Raises DataError if validation or the test would be empty.
    """
    rule = config.split_rule
    if rule.kind != "time":
        return None
    if len(rule.dates) == 2:
        return Cuts(*rule.dates)
    files = [map_arrays(root, receipt.files[0].path)["time"] for receipt in partitions]
    num_events = sum(map(len, files))
    if rule.dates:
        (validation,) = rule.dates
        held = sum(int(np.count_nonzero(times >= validation)) for times in files) // 2
    else:
        held = round(rule.share * num_events)
        validation = _time_at(partitions, files, num_events - 2 * held) if held else 0
    if not held:
        raise DataError(
            f"--split {config.split}: leaves no event for validation or for the test; {_range(partitions)}; "
            f"give a larger share or earlier dates, {_AGAIN}"
        )
    test = _time_at(partitions, files, num_events - held)
    if test <= validation:
        raise DataError(
            f"--split {config.split}: validation and the test would both begin at {date_text(validation)}, because so "
            f"many events have this time; {_range(partitions)}; give two dates, {_AGAIN}"
        )
    return Cuts(validation, test)


def _time_at(partitions: Sequence[SortedReceipt], files: Sequence[NDArray[np.int64]], place: int) -> int:
    """The time of the event at `place`, from 0, in the order of time."""
    low, high = _time_range(partitions)
    while low < high:
        width = (high - low) // _BINS + 1
        counts = np.zeros(_BINS, np.int64)
        for times in files:
            inside = times[(times >= low) & (times <= high)]
            counts += np.bincount((inside - low) // width, minlength=_BINS)
        ends = np.cumsum(counts)
        found = int(np.searchsorted(ends, place, side="right"))
        place -= int(ends[found] - counts[found])
        low, high = low + found * width, min(low + (found + 1) * width - 1, high)
    return low


def split_by_time(
    root: Path, config: BuildConfig, partitions: Sequence[SortedReceipt], num_provisional: int, cuts: Cuts
) -> tuple[HeldOut, TimeSplit, float]:
    """How many first events of each history the splits use; the facts of the split; the share of repeats among the
    item targets of training.

    Raises DataError if no event is left for training, validation or the test.
    """
    kept, seen = np.zeros((2, num_provisional), np.bool_)  # by item: has it an event, has it one that training targets?
    parts = []
    for receipt in partitions:
        arrays = map_arrays(root, receipt.files[0].path)
        parts.append(_Part.of(arrays, num_provisional, cuts))
        kept[arrays["item"]] = True
        seen[arrays["item"][(arrays["time"] < cuts.validation) & (arrays["status"] != PLANNED)]] = True
    sums = np.sum([part.sums for part in parts], axis=0).tolist()
    targets, repeats, validation_events, test_events, test_users, new_users = sums
    held_out = HeldOut(*(np.concatenate(of) for of in zip(*((p.training, p.validation) for p in parts), strict=True)))
    left = {
        f"no event before {date_text(cuts.validation)} is left, so there is no training": targets,
        f"no user has events before {date_text(cuts.validation)} and from then to "
        f"{date_text(cuts.test)}, so there is no validation": int(held_out.validation_events.sum()),
        f"no user has events before {date_text(cuts.test)} and from then on, so there is no test": test_users,
    }
    for lack, number in left.items():
        if not number:
            raise DataError(
                f"--split {config.split}: {lack}; {_range(partitions)}; give other dates or another share, {_AGAIN}"
            )
    facts = TimeSplit(
        validation_start=cuts.validation,
        test_start=cuts.test,
        validation_events=validation_events,
        test_events=test_events,
        test_users=test_users,
        new_users=new_users,
        unseen_items=int((kept & ~seen).sum()),
    )
    return held_out, facts, repeats / max(targets, 1)


@dataclass(frozen=True)
class _Part:
    """What the cuts make of one partition."""

    training: NDArray[np.int64]  # (users,)
    validation: NDArray[np.int64]  # (users,)
    sums: tuple[int, ...]  # targets and repeats of training; events of validation, of the test; users of the test; new

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]], num_provisional: int, cuts: Cuts) -> "_Part":
        offsets, time = arrays["offsets"], arrays["time"]
        is_target = arrays["status"] != PLANNED
        is_training, is_test = time < cuts.validation, time >= cuts.test
        training = _per_user(is_training, offsets)
        place = _first(is_target & ~is_training & ~is_test, offsets)
        asked = _first(is_target & is_test, offsets) >= 0
        known = _per_user(~is_test, offsets) > 0
        tally = np.zeros(3, np.int64)
        count_ties_and_repeats(
            arrays["item"][is_training],
            time[is_training],
            arrays["status"][is_training],
            np.append(0, np.cumsum(training)),
            PLANNED,
            np.full(num_provisional, -1, np.int32),
            tally,
        )
        _, targets, repeats = tally.tolist()
        num_test = int(is_test.sum())
        held = len(time) - int(is_training.sum()) - num_test
        sums = (targets, repeats, held, num_test, int((asked & known).sum()), int((asked & ~known).sum()))
        return cls(training, np.where((training > 0) & (place >= 0), place + 1, 0), sums)


def _per_user(chosen: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(users,): the number of chosen events of each history."""
    counts: NDArray[np.int64] = np.diff(np.append(0, np.cumsum(chosen))[offsets])
    return counts


def _first(chosen: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(users,): the place of the first chosen event in each history; -1 without one."""
    events = np.flatnonzero(chosen)
    users, first = np.unique(np.searchsorted(offsets, events, side="right") - 1, return_index=True)
    places = np.full(len(offsets) - 1, -1, np.int64)
    places[users] = events[first] - offsets[users]
    return places


def _time_range(partitions: Sequence[SortedReceipt]) -> tuple[int, int]:
    times = [time for receipt in partitions for time in receipt.facts.time_range]
    return min(times), max(times)


def _range(partitions: Sequence[SortedReceipt]) -> str:
    return "the events are from {} to {}".format(*map(date_text, _time_range(partitions)))
