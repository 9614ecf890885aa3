"""Decides how many events of each history are for training and for validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfeat.builder.tasks import HELD_OUT_FILE
from streamfeat.builder.time_split import Cuts, split_by_time
from streamfeat.config import BuildConfig
from streamfeat.kernels.draws import VALIDATION_USER, permutation
from streamfeat.kernels.last_but_one import last_but_one_targets
from streamfeat.schema import PLANNED
from streamfeat.store.array_files import map_arrays, write_arrays
from streamfeat.store.histories import HeldOut
from streamfeat.store.manifest import TimeSplit
from streamfeat.store.receipts import SortedReceipt


@dataclass(frozen=True)
class Division:
    """What each split gets of the histories, and the facts that follow from it."""

    held_out: HeldOut
    repeat_share: float  # of item targets; with a split by time, of those of training
    time_split: TimeSplit | None = None


def hold_out(
    root: Path, config: BuildConfig, partitions: Sequence[SortedReceipt], num_provisional: int, cuts: Cuts | None
) -> Division:
    """How many events of every history the splits use. Also writes a file of it for the history tasks.

    `cuts` are those of a split by time. Raises DataError as `split_by_time`.
    """
    if cuts is not None:
        held_out, time_split, repeat_share = split_by_time(root, config, partitions, num_provisional, cuts)
        division = Division(held_out, repeat_share, time_split)
    else:
        facts = [receipt.facts for receipt in partitions]
        repeat_share = sum(each.repeats for each in facts) / max(sum(each.targets for each in facts), 1)
        division = Division(_without_cuts(root, config, partitions), repeat_share)
    write_arrays(root, HELD_OUT_FILE, {"training_events": division.held_out.training_events})
    return division


def _without_cuts(root: Path, config: BuildConfig, partitions: Sequence[SortedReceipt]) -> HeldOut:
    files = [map_arrays(root, receipt.files[0].path) for receipt in partitions]
    lengths = np.concatenate([np.diff(arrays["offsets"]) for arrays in files])
    if config.split_rule.kind == "users":
        return _whole_users(lengths, config)
    places = [_validation_targets(arrays["status"], arrays["offsets"]) for arrays in files]
    return _last_events(lengths, np.concatenate(places))


def _validation_targets(status: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(users,) int64: the place of the last but one event with an item target; -1 for users with too few targets."""
    places = np.empty(len(offsets) - 1, np.int64)
    last_but_one_targets(np.array(status), np.array(offsets), PLANNED, places)
    return places


def _last_events(lengths: NDArray[np.int64], places: NDArray[np.int64]) -> HeldOut:
    held = places >= 0
    return HeldOut(np.where(held, places, lengths), np.where(held, places + 1, 0))


def _whole_users(lengths: NDArray[np.int64], config: BuildConfig) -> HeldOut:
    """Takes the users with the smallest seeded draws for validation."""
    num_users = len(lengths)
    num_validation = num_users - round((1 - config.split_rule.share) * num_users)
    num_validation = min(max(num_validation, 1), num_users - 1)
    is_validation = np.zeros(num_users, np.bool_)
    is_validation[permutation(config.seed, VALIDATION_USER, num=num_users)[:num_validation]] = True
    return HeldOut(np.where(is_validation, 0, lengths), np.where(is_validation, lengths, 0))
