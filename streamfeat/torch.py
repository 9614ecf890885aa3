"""`WindowDataset`: a `WindowStream` for PyTorch's own DataLoader."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from streamfeat.config import MaskPolicy, Objective, SplitName
from streamfeat.errors import ConfigError
from streamfeat.records import Frozen, validated
from streamfeat.store.manifest import Manifest
from streamfeat.stream.stream import StreamState, WindowStream


class DatasetState(Frozen):
    """The position of a dataset. Unlike a stream, it also knows its epoch: an iteration ends with the epoch."""

    known_format = ("format", 1)

    format: Literal[1] = 1
    epoch: int = Field(ge=0)  # of the iteration
    stream: StreamState


class WindowDataset(IterableDataset[dict[str, Tensor]]):
    """Shuffled batches of windows as dicts of tensors, which stay valid. One item is one batch.

        dataset = WindowDataset("data", objective="causal", batch_windows=64, threads=2)
        for epoch in range(3):
            for batch in DataLoader(dataset, batch_size=None):
                batch["item"], batch["target_item"]  # (rows, window_len)

    The batches are those of `WindowStream` with the same arguments. Each iteration is one epoch; the next iteration is
    the next epoch, even if this one is not finished. The first iteration after `load_state_dict` is the rest of the
    saved epoch. Validation is the same in every epoch. A new iteration ends the one before.

    With `num_workers=1` a separate process reads (with `persistent_workers=True` it is not started again for each
    epoch). More workers are an error, because threads share the work better. torchdata's StatefulDataLoader resumes
    exactly, with 0 workers and with 1: it counts delivered batches, not prefetched ones. Each rank needs its own
    dataset.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        objective: Objective,
        mask_policy: MaskPolicy = "disjoint",
        batch_windows: int,
        seed: int = 0,
        split: SplitName = "training",
        rank: int | None = None,
        world_size: int | None = None,
        threads: int = 1,
    ) -> None:
        """Opens the dataset at `path`. Arguments and errors are those of `WindowStream`.

        rank, world_size: both or neither. The default comes from torch.distributed if it is initialised, otherwise 0
        of 1.
        """
        if (rank is None) != (world_size is None):
            raise ConfigError(
                f"WindowDataset: rank is {rank} and world_size is {world_size}; give both, or neither to take them "
                "from torch.distributed"
            )
        if rank is None:
            joined = dist.is_available() and dist.is_initialized()
            rank, world_size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
        self._options: dict[str, Any] = {
            "path": Path(path).absolute(),  # loader workers open it later, maybe after a chdir
            "objective": objective,
            "mask_policy": mask_policy,
            "batch_windows": batch_windows,
            "seed": seed,
            "split": split,
            "rank": rank,
            "world_size": world_size,
            "threads": threads,
        }
        self._open()
        # The start of the next iteration (epoch, position, packings), and whether a worker made the last one. In shared
        # memory, because each epoch may have new workers, which must continue where the last ones ended.
        self._next = _shared(torch.tensor([0, 0, self._stream.state_dict()["packings"], False]))
        self._epoch = 0

    @property
    def manifest(self) -> Manifest:
        """The dataset's manifest: schema, counts, loss scales."""
        return self._stream.manifest

    def __len__(self) -> int:
        """Batches of an epoch; the same on every rank."""
        return self._stream.steps_per_epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise ConfigError(
                f"WindowDataset: num_workers is {worker.num_workers}, but each worker would read everything; give "
                f"DataLoader num_workers=0 or 1, and WindowDataset threads={worker.num_workers} to read faster"
            )
        if self._process != os.getpid():  # a forked worker must not use the files that its parent has open
            self._open()
        self._go_to_next()
        end = (self._epoch + 1) * len(self)
        self._next[0], self._next[1], self._next[3] = self._epoch + 1, end, worker is not None
        return _as_tensors(iter(self._stream)) if self._stream.position < end else iter(())

    def state_dict(self) -> dict[str, Any]:
        """The state for `load_state_dict`: JSON values; it counts delivered batches.

        Raises ConfigError if a DataLoader's worker reads, because it has prefetched more than was delivered.
        """
        if self._next[3] and get_worker_info() is None:
            raise ConfigError(
                "WindowDataset: a DataLoader's worker reads, so the number of delivered batches is not known here; use "
                "the state of torchdata's StatefulDataLoader, or read with num_workers=0"
            )
        return {"format": 1, "epoch": self._epoch, "stream": self._stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration the rest of the saved one, with any rank and world size.

        Raises ConfigError if `state` is not a state, or with both values if it belongs to another dataset or stream.
        """
        saved = validated(DatasetState, state, "WindowDataset state")
        first, position = saved.epoch * len(self), saved.stream.position
        self._stream.load_state_dict(state["stream"])
        if not first <= position <= first + len(self):
            self._go_to_next()
            raise ConfigError(
                f"WindowDataset state: position {position} is not in epoch {saved.epoch}, batches {first} to "
                f"{first + len(self)}; load an unchanged state from `state_dict`"
            )
        self._next.copy_(torch.tensor([saved.epoch, position, saved.stream.packings, False]))
        self._go_to_next()

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self._options, "next": self._next}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options, self._next = state["options"], _shared(state["next"])
        self._open()
        self._go_to_next()

    def _open(self) -> None:
        self._process = os.getpid()
        self._stream = WindowStream(**self._options, copy=True)

    def _go_to_next(self) -> None:
        self._epoch, position, packings, _ = self._next.tolist()
        self._stream.load_state_dict({**self._stream.state_dict(), "position": position, "packings": packings})


def _shared(tensor: Tensor) -> Tensor:
    return tensor.share_memory_()  # type: ignore[no-untyped-call,no-any-return]


def _as_tensors(batches: Iterator[dict[str, Any]]) -> Generator[dict[str, Tensor]]:
    for arrays in batches:
        yield {name: torch.from_numpy(array) for name, array in arrays.items()}
