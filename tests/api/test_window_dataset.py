"""`WindowDataset` with PyTorch's DataLoader and torchdata's: the same batches as the stream, for any reader, resumed
at any batch."""

import copy
import json
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from streamfeat import WindowStream
from streamfeat.errors import ConfigError
from streamfeat.torch import WindowDataset

Arrays = dict[str, NDArray[Any]]
Tensors = dict[str, Tensor]

OPTIONS: dict[str, Any] = {"objective": "causal", "batch_windows": 4, "seed": 3}
# How DataLoader may read. Starting a process anew takes seconds, so most tests fork.
NO_WORKER: dict[str, Any] = {"num_workers": 0}
FORKED: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "fork"}
SPAWNED: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "spawn", "persistent_workers": True}
READERS = [NO_WORKER, FORKED, pytest.param({**FORKED, "persistent_workers": True}, marks=pytest.mark.slow)]
by_reader = pytest.mark.parametrize("reader", READERS, ids=["no worker", "a worker", "a worker that stays"])

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata's own call


def dataset_of(path: Path, **options: Any) -> WindowDataset:
    return WindowDataset(path, **(OPTIONS | options))


def plain(path: Path, reader: dict[str, Any], **options: Any) -> DataLoader[Tensors]:
    return DataLoader(dataset_of(path, **options), batch_size=None, **reader)


def stateful(path: Path, reader: dict[str, Any], **options: Any) -> Any:
    return StatefulDataLoader(dataset_of(path, **options), batch_size=None, **reader)


def streamed(path: Path, num_epochs: int, **options: Any) -> list[list[Arrays]]:
    """The same batches from a `WindowStream`, epoch by epoch."""
    with WindowStream(path, **(OPTIONS | {"copy": True} | options)) as stream:
        return [list(stream) for _ in range(num_epochs)]


def assert_same(found: list[Tensors], expected: list[Arrays]) -> None:
    assert len(found) == len(expected)
    for i, (tensors, arrays) in enumerate(zip(found, expected, strict=True)):
        assert tensors.keys() == arrays.keys()
        for name, array in arrays.items():
            assert tensors[name].dtype == torch.from_numpy(array).dtype
            np.testing.assert_array_equal(tensors[name].numpy(), array, f"{name} of batch {i}")


@by_reader
@pytest.mark.parametrize("options", [{}, {"objective": "masked", "threads": 2}, {"split": "validation"}])
def test_three_epochs_are_those_of_the_stream(
    tiny_dataset: Path, reader: dict[str, Any], options: dict[str, Any]
) -> None:
    """Each iteration continues with the next epoch, and batches stay valid: all are kept and then compared."""
    loader = plain(tiny_dataset, reader, **options)
    found = [list(loader) for _ in range(3)]
    for epoch, expected in zip(found, streamed(tiny_dataset, 3, **options), strict=True):
        assert len(loader) == len(expected) >= 2
        assert_same(epoch, expected)


@pytest.mark.slow
def test_a_worker_that_is_started_afresh_reads_the_same(tiny_dataset: Path) -> None:
    """With `spawn`, the only way on other systems, the worker gets the dataset by its arguments."""
    expected = streamed(tiny_dataset, 2)
    loader = stateful(tiny_dataset, SPAWNED)
    assert_same(list(loader), expected[0])
    half = len(expected[1]) // 2
    assert_same(list(islice(loader, half)), expected[1][:half])
    resumed = stateful(tiny_dataset, SPAWNED)
    resumed.load_state_dict(loader.state_dict())
    assert_same(list(resumed), expected[1][half:])


@by_reader
def test_an_iteration_left_early_is_followed_by_the_next_epoch(tiny_dataset: Path, reader: dict[str, Any]) -> None:
    """Even if a worker has prefetched more. So looking at the first batch does not change later epochs."""
    loader = plain(tiny_dataset, reader)
    next(iter(loader))
    assert_same(list(loader), streamed(tiny_dataset, 2)[1])


def saved_after_every_batch(loader: Any, num_epochs: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(epoch, its delivered batches, state): before the first batch, after each one, and after the end of each
    epoch."""
    for epoch in range(num_epochs):
        batches = iter(loader)
        yield epoch, 0, loader.state_dict()
        for i, _ in enumerate(batches):
            yield epoch, i + 1, loader.state_dict()
        yield epoch, i + 1, {**loader.state_dict(), "ended": True}


@pytest.mark.parametrize("batch_windows", [4, pytest.param(12, marks=pytest.mark.slow)])
@by_reader
def test_torchdata_resumes_at_every_batch_of_two_epochs(
    tiny_dataset: Path, reader: dict[str, Any], batch_windows: int
) -> None:
    """After saving, creating it again and loading, the rest of the epoch and the next epochs are equal bit for bit.
    Also if an epoch has fewer batches than a worker prefetches."""
    expected = streamed(tiny_dataset, 4, batch_windows=batch_windows)
    states = list(saved_after_every_batch(stateful(tiny_dataset, reader, batch_windows=batch_windows), 2))
    assert len(states) == 2 * (len(expected[0]) + 2) >= 8
    for epoch, delivered, state in states:
        resumed = stateful(tiny_dataset, reader, batch_windows=batch_windows)
        ended = state.pop("ended", False)
        resumed.load_state_dict(copy.deepcopy(state))
        if not ended:
            assert_same(list(resumed), expected[epoch][delivered:])
        for after in expected[epoch + 1 : epoch + 3]:
            assert_same(list(resumed), after)


@pytest.mark.parametrize("reader", [NO_WORKER, FORKED], ids=["no worker", "a worker"])
def test_a_resumed_loader_can_be_saved_and_resumed_again(tiny_dataset: Path, reader: dict[str, Any]) -> None:
    """At once, before it has delivered anything, and after a batch."""
    expected = streamed(tiny_dataset, 2)
    loader = stateful(tiny_dataset, reader)
    state = loader.state_dict()
    for delivered in range(len(expected[0])):
        again = stateful(tiny_dataset, reader)
        again.load_state_dict(state)
        state = again.state_dict()
        loader = stateful(tiny_dataset, reader)
        loader.load_state_dict(state)
        assert_same([next(iter(loader))], expected[0][delivered : delivered + 1])
        state = loader.state_dict()
    loader = stateful(tiny_dataset, reader)
    loader.load_state_dict(state)
    assert [len(list(loader)), len(list(loader))] == [0, len(expected[1])]


@pytest.mark.parametrize("every", [2, 3])
def test_a_state_taken_between_two_snapshots_is_exact_too(tiny_dataset: Path, every: int) -> None:
    """With `snapshot_every_n_steps`, torchdata continues from the last snapshot and skips the batches
    delivered since."""
    expected = streamed(tiny_dataset, 1)[0]

    def make() -> Any:
        dataset = dataset_of(tiny_dataset)
        return StatefulDataLoader(dataset, batch_size=None, snapshot_every_n_steps=every, **FORKED)

    loader = make()
    for delivered, _ in enumerate(loader, 1):
        resumed = make()
        resumed.load_state_dict(loader.state_dict())
        assert_same(list(resumed), expected[delivered:])


def test_the_dataset_alone_resumes_at_every_batch(tiny_dataset: Path) -> None:
    """Without any DataLoader; the state is JSON."""
    expected = streamed(tiny_dataset, 3)
    dataset = dataset_of(tiny_dataset)
    for epoch in range(2):
        for delivered, _ in enumerate(dataset, 1):
            resumed = dataset_of(tiny_dataset)
            resumed.load_state_dict(json.loads(json.dumps(dataset.state_dict())))
            assert_same(list(resumed), expected[epoch][delivered:])
            assert_same(list(resumed), expected[epoch + 1])


def test_a_loaded_state_reaches_the_worker_of_a_plain_loader(tiny_dataset: Path) -> None:
    """Loading the state into the dataset is enough to continue another run."""
    expected, dataset = streamed(tiny_dataset, 2), dataset_of(tiny_dataset)
    list(islice(dataset, 3))
    loader = plain(tiny_dataset, FORKED)
    loader.dataset.load_state_dict(dataset.state_dict())  # type: ignore[attr-defined]
    assert_same(list(loader), expected[0][3:])
    assert_same(list(loader), expected[1])


def test_a_forked_worker_leaves_alone_what_its_parent_reads(tiny_dataset: Path) -> None:
    """The parent's iteration continues, and the worker begins its own."""
    expected, dataset = streamed(tiny_dataset, 2), dataset_of(tiny_dataset, threads=2)
    batches = iter(dataset)
    first = next(batches)
    assert_same(list(DataLoader(dataset, batch_size=None, **FORKED)), expected[1])
    assert_same([first, *batches], expected[0])


def test_what_a_worker_of_a_plain_loader_delivered_is_not_guessed(tiny_dataset: Path) -> None:
    """The worker has read ahead, so its state would skip batches that were not delivered."""
    loader = plain(tiny_dataset, FORKED)
    next(iter(loader))
    with pytest.raises(ConfigError, match=r"StatefulDataLoader, or read with num_workers=0"):
        loader.dataset.state_dict()  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [plain, stateful])
def test_more_than_one_worker_is_refused_with_the_remedy(tiny_dataset: Path, make: Callable[..., Any]) -> None:
    """Each worker would read everything; threads share the work instead."""
    with pytest.raises(ConfigError, match=r"num_workers=0 or 1, and WindowDataset threads=2") as refused:
        next(iter(make(tiny_dataset, {**FORKED, "num_workers": 2})))
    # The error's frames hold it, and through it the loader, whose workers end with the loader.
    traceback.clear_frames(refused.tb)


def test_the_state_of_another_dataset_is_refused(tiny_dataset: Path) -> None:
    """The error has both values. A value that is not a state, or an inconsistent one, is an error, too."""
    dataset = dataset_of(tiny_dataset)
    state = dataset.state_dict()
    with pytest.raises(ConfigError, match=r"seed 3 \(here 4\)"):
        dataset_of(tiny_dataset, seed=4).load_state_dict(state)
    with pytest.raises(ConfigError, match="unknown key"):
        dataset.load_state_dict(state["stream"])
    with pytest.raises(ConfigError, match=f"position 0 is not in epoch 1, batches {len(dataset)} to"):
        dataset.load_state_dict({**state, "epoch": 1})
    assert dataset.state_dict() == state


def test_a_copy_begins_with_the_same_iteration(tiny_dataset: Path) -> None:
    """A pickled dataset has its arguments and the number of the next iteration."""
    dataset = dataset_of(tiny_dataset)
    list(dataset)
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert_same(list(other), streamed(tiny_dataset, 2)[1])
    assert_same(list(dataset), streamed(tiny_dataset, 2)[1])


def test_packings_added_later_do_not_change_a_run(tiny_dataset: Path) -> None:
    """A run keeps the number of packings with which it began: here 1 of 2."""
    dataset = dataset_of(tiny_dataset)
    state = dataset.state_dict()
    state["stream"]["packings"] = 1
    loader = plain(tiny_dataset, FORKED)
    loader.dataset.load_state_dict(state)  # type: ignore[attr-defined]
    with WindowStream(tiny_dataset, copy=True, **OPTIONS) as stream:
        stream.load_state_dict(state["stream"])
        for _ in range(2):
            assert_same(list(loader), list(stream))


RANK = """
import sys, torch.distributed as dist
from streamfeat.torch import WindowDataset
path, rank, store = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
batches = list(WindowDataset(path, objective="causal", batch_windows=4, seed=3))
print(*(int(window) for batch in batches for window in batch["window"]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_come_from_torch_distributed(tiny_dataset: Path, tmp_path: Path) -> None:
    """Two real ranks read the same as two streams with given ranks."""
    processes = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tiny_dataset), str(rank), str(tmp_path / "store")],
                         stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    for rank, process in enumerate(processes):
        said, _ = process.communicate(timeout=240)
        expected = streamed(tiny_dataset, 1, rank=rank, world_size=2)[0]
        assert [int(window) for window in said.split()] == [int(w) for batch in expected for w in batch["window"]]


def test_given_ranks_come_together(tiny_dataset: Path) -> None:
    """A rank without a world size is an error. Given ones are passed to the stream."""
    with pytest.raises(ConfigError, match="rank is 1 and world_size is None; give both"):
        dataset_of(tiny_dataset, rank=1)
    shares = [list(dataset_of(tiny_dataset, rank=rank, world_size=2)) for rank in range(2)]
    assert_same(shares[1], streamed(tiny_dataset, 1, rank=1, world_size=2)[0])


def test_a_loop_of_ones_own_needs_no_trainer() -> None:
    """`streamfeat.torch` imports torch and the library, but not the trainer."""
    code = "import sys, streamfeat.torch; print([name for name in sys.modules if name.partition('.')[0] == 'train'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
