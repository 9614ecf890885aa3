"""For your own tests: a tiny dataset, and a check that a stream resumes exactly.

    from streamfeat.testing import assert_resumes_exactly, tiny_dataset

    def test_my_loader_resumes(tmp_path):
        data = tiny_dataset(tmp_path / "data")
        assert_resumes_exactly(lambda: MyLoader(data))

The check needs only NumPy and works with any test runner.
"""

import copy
import csv
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np

USERS, ITEMS = 40, 30  # of the tiny dataset


class Resumable(Protocol):
    """An object that can be checked: a `WindowStream`, a loader, your own wrapper."""

    def __iter__(self) -> Iterator[Any]:
        """The rest of the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """The current position."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the position of `state`."""


def tiny_dataset(folder: str | Path, *, window_len: int = 16, seed: int = 0) -> Path:
    """Build a dataset of 40 users and 30 items in `folder`, which must be new or empty, and return its path.

    The same arguments give the same dataset. A fifth of the users are for validation. Raises ConfigError if `folder`
    holds something else.
    """
    from streamfeat.builder.coordinator import build_shards

    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="streamfeat-testing-") as work:
        events = Path(work) / "events.csv"
        with events.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["user", "item", "timestamp", "rating"])
            for user in range(1, USERS + 1):
                time = 1_600_000_000
                for _ in range(draw.randint(4, 24)):
                    time += draw.randint(60, 1_000_000)
                    rows.writerow([user, draw.randint(1, ITEMS), time, draw.randint(1, 10)])
        build_shards([str(events)], folder, window_len=window_len, split="users:0.2", chunk_windows=2, shard_windows=8)
    return Path(folder)


def assert_resumes_exactly(make: Callable[[], Resumable], *, positions: Sequence[int] | None = None) -> None:
    """Raise AssertionError unless a stream that is resumed delivers the very batches that it would have delivered.

    make: returns a new stream at its start, the same one each time. Iterating over it gives one epoch, or its rest.
    positions: numbers of batches after which the stream is resumed; None: 0, 1, half of them, all but one.

    The batches of one epoch are kept in memory. At each position a new stream is read up to there, its state is
    written as JSON and read back, as in a checkpoint, and another new stream continues from it. The error names the
    first difference: the position, the batch, the array, the place. Batches may be arrays, tensors on the CPU, numbers,
    texts, and mappings or sequences of these.

    Also raises AssertionError if the check would prove nothing: fewer than two batches, equal batches, or a `make` that
    returns the same stream twice. Raises TypeError if `make` is a stream, ValueError if there is no position or one is
    not that of a batch.
    """
    if not callable(make):
        raise TypeError(f"make: give a function that makes a new stream, as lambda: MyLoader(data), not {make!r}")
    whole = [copy.deepcopy(batch) for batch in make()]
    last = len(whole)
    if last < 2:
        raise AssertionError(f"an epoch has {last} batches, but the check needs two or more: make batches smaller")
    if not any(_differ(batch, whole[0]) for batch in whole[1:]):
        raise AssertionError(f"all {last} batches are equal, so a wrong position would not be found: use other data")
    chosen = sorted({0, 1, last // 2, last - 1}) if positions is None else list(positions)
    if not chosen or not all(0 <= position < last for position in chosen):
        raise ValueError(f"positions: {chosen} cannot be checked; give numbers from 0 to {last - 1}, or None")
    for position in chosen:
        first, resumed = make(), make()
        if first is resumed:
            raise AssertionError("make returned the same stream twice; it must make a new one at each call")
        reading = iter(first)  # the state is taken while it is being read, as in a training loop
        for number, batch in enumerate(islice(reading, position)):
            _compare(batch, whole[number], f"read twice from its start, batch {number}")
        resumed.load_state_dict(_through_json(first.state_dict(), position))
        where = f"resumed after {position} batches"
        missing = object()
        for number, (got, expected) in enumerate(zip_longest(resumed, whole[position:], fillvalue=missing), position):
            if got is missing or expected is missing:
                kind = "ends before" if got is missing else "has one more:"
                raise AssertionError(f"{where}, the stream {kind} batch {number} of {last}")
            _compare(got, expected, f"{where}, batch {number}")


def _differ(one: Any, other: Any) -> bool:
    try:
        _compare(one, other, "")
    except AssertionError:
        return True
    return False


def _through_json(state: dict[str, Any], position: int) -> dict[str, Any]:
    try:
        text = json.dumps(state)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the state after {position} batches cannot be written as JSON: {error}") from None
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _compare(got: Any, expected: Any, where: str) -> None:
    """Raise AssertionError at the first difference."""
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or list(got) != list(expected):
            raise AssertionError(f"{where}: got {_keys(got)}, expected {_keys(expected)}")
        for name in expected:
            _compare(got[name], expected[name], f"{where}, {name!r}")
    elif isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(expected):
            raise AssertionError(f"{where}: got {got!r}, expected {expected!r}")
        for index, value in enumerate(expected):
            _compare(got[index], value, f"{where}[{index}]")
    else:
        _compare_arrays(np.asarray(got), np.asarray(expected), where)


def _compare_arrays(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], where: str) -> None:
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        raise AssertionError(f"{where}: got {got.dtype} {got.shape}, expected {expected.dtype} {expected.shape}")
    both_nan = (got != got) & (expected != expected)
    differing = np.argwhere((got != expected) & ~both_nan)
    if len(differing):
        place = tuple(differing[0].tolist())
        raise AssertionError(
            f"{where}: {len(differing)} of {got.size} values differ, first at {place}: "
            f"got {got[place].item()!r}, expected {expected[place].item()!r}"
        )


def _keys(value: Any) -> str:
    return f"the keys {list(value)}" if isinstance(value, Mapping) else repr(value)
