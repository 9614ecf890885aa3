"""What `streamfeat.testing` says is so; it finds a stream that does not resume."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamfeat import WindowStream, load_manifest
from streamfeat.testing import assert_resumes_exactly, tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("testing") / "data")


def test_the_tiny_dataset_is_the_same_each_time(dataset: Path, tmp_path: Path) -> None:
    """Tests that are written against it do not change from run to run."""
    again = tiny_dataset(tmp_path / "again")
    assert load_manifest(again).fingerprint == load_manifest(dataset).fingerprint
    files = [path.relative_to(dataset) for path in (dataset / "windows.zarr").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [file for file in files if (again / file).read_bytes() != (dataset / file).read_bytes()] == []


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_our_own_stream_resumes_exactly(dataset: Path, objective: Any) -> None:
    """At every batch of an epoch."""
    make = lambda: WindowStream(dataset, objective=objective, batch_windows=2, seed=5)  # noqa: E731
    assert_resumes_exactly(make)
    assert_resumes_exactly(make, positions=range(make().steps_per_epoch))


class _Counting:
    """Batches 0 to 9; `fault` is what goes wrong in it."""

    def __init__(self, fault: str = "", *, batches: int = 10) -> None:
        self._fault = fault
        self._batches = batches
        self._next = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self._next < self._batches:
            number, self._next = self._next, self._next + 1
            value = 0 if self._fault == "always the same" else number
            yield {"item": np.full((2, 3), value), "share": np.full(3, np.nan)}

    def rewound(self) -> "_Counting":
        self._next = 0
        return self

    def state_dict(self) -> dict[str, Any]:
        ahead = 1 if self._fault == "counts what was prefetched" else 0
        return {"next": {self._next} if self._fault == "no JSON" else self._next + ahead}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next = 0 if self._fault == "starts again" else state["next"]
        if self._fault == "repeats" and self._next:
            self._next -= 1


def test_a_stream_that_resumes_passes() -> None:
    """Values that are not a number are equal to themselves."""
    assert_resumes_exactly(_Counting)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("counts what was prefetched", r"resumed after 0 batches, batch 0, 'item': 6 of 6 values differ, first at "
                                       r"\(0, 0\): got 1, expected 0"),
        ("starts again", "resumed after 1 batches, batch 1, 'item'.*got 0, expected 1"),
        ("repeats", "resumed after 1 batches, batch 1, 'item'.*got 0, expected 1"),
        ("no JSON", "state after 0 batches cannot be written as JSON"),
    ],
)  # fmt: skip
def test_a_stream_that_does_not_resume_is_found_with_the_first_difference(fault: str, message: str) -> None:
    """The usual mistakes: a position that counts what was prefetched, one that is not loaded, one off by one."""
    with pytest.raises(AssertionError, match=message):
        assert_resumes_exactly(lambda: _Counting(fault))


def test_a_stream_that_is_not_the_same_from_its_start_is_found() -> None:
    """Otherwise a wrong order looks like wrong resuming."""
    starts = iter(range(10))

    class Shifting(_Counting):
        def __init__(self) -> None:
            super().__init__()
            self._next = next(starts)

    with pytest.raises(AssertionError, match=r"read twice from its start, batch 0, 'item'.*got 1, expected 0"):
        assert_resumes_exactly(Shifting, positions=[3])


@pytest.mark.parametrize("num", [0, 1])
def test_an_epoch_in_which_resuming_cannot_show_proves_nothing(num: int) -> None:
    """A check that compares nothing must not pass."""
    with pytest.raises(AssertionError, match=f"an epoch has {num} batches"):
        assert_resumes_exactly(lambda: _Counting(batches=num))


def test_batches_that_are_all_alike_prove_nothing() -> None:
    """The batch after a wrong place would look right."""
    with pytest.raises(AssertionError, match="all 10 batches are equal"):
        assert_resumes_exactly(lambda: _Counting("always the same"))


def test_one_stream_given_twice_proves_nothing() -> None:
    """It stands at the right place without its state having been loaded."""
    stream = _Counting("starts again")
    with pytest.raises(AssertionError, match="make returned the same stream twice"):
        assert_resumes_exactly(lambda: stream.rewound())


def test_a_stream_in_place_of_a_function_is_refused_with_what_to_write() -> None:
    """A stream that was given once cannot be taken up by another one."""
    with pytest.raises(TypeError, match="give a function that makes a new stream, as lambda"):
        assert_resumes_exactly(_Counting())  # type: ignore[arg-type]


@pytest.mark.parametrize("positions", [[], [10], [-1], [0, 11]])
def test_positions_at_which_nothing_is_left_are_refused(positions: list[int]) -> None:
    """No position is no check, and after the last batch a stream may well go on with the next epoch."""
    with pytest.raises(ValueError, match=r"give numbers from 0 to 9"):
        assert_resumes_exactly(_Counting, positions=positions)


def test_the_dataset_for_pytorch_resumes_exactly_and_so_does_a_stateful_loader(dataset: Path) -> None:
    """Batches that are tensors; a state that holds another one."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    from streamfeat.torch import WindowDataset

    make = lambda: WindowDataset(dataset, objective="causal", batch_windows=2)  # noqa: E731
    assert_resumes_exactly(make)
    assert_resumes_exactly(lambda: StatefulDataLoader(make(), batch_size=None))
