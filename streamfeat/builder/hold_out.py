"""Decides how many events of each history are for training and for validation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfeat.builder.tasks import HELD_OUT_FILE
from streamfeat.config import BuildConfig
from streamfeat.kernels.draws import VALIDATION_USER, permutation
from streamfeat.kernels.last_but_one import last_but_one_targets
from streamfeat.schema import PLANNED
from streamfeat.store.array_files import map_arrays, write_arrays
from streamfeat.store.histories import HeldOut
from streamfeat.store.receipts import SortedReceipt


def hold_out(root: Path, config: BuildConfig, partitions: Sequence[SortedReceipt]) -> HeldOut:
    """How many events of every history the splits use. Also writes a file of it for the history tasks."""
    files = [map_arrays(root, receipt.files[0].path) for receipt in partitions]
    lengths = np.concatenate([np.diff(arrays["offsets"]) for arrays in files])
    if config.holds_out_last:
        places = [_validation_targets(arrays["status"], arrays["offsets"]) for arrays in files]
        held_out = _last_events(lengths, np.concatenate(places))
    else:
        held_out = _whole_users(lengths, config)
    write_arrays(root, HELD_OUT_FILE, {"training_events": held_out.training_events})
    return held_out


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
    num_validation = num_users - round((1 - config.validation_share) * num_users)
    num_validation = min(max(num_validation, 1), num_users - 1)
    is_validation = np.zeros(num_users, np.bool_)
    is_validation[permutation(config.seed, VALIDATION_USER, num=num_users)[:num_validation]] = True
    return HeldOut(np.where(is_validation, 0, lengths), np.where(is_validation, lengths, 0))
