"""`WindowStream`: batches of a built dataset for a training loop, resumable at any batch."""

import contextlib
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from pydantic import Field

from streamfeat.config import MaskPolicy, Objective, SplitName, StreamConfig
from streamfeat.errors import ConfigError
from streamfeat.records import Frozen, validated
from streamfeat.store.layout import WINDOWS
from streamfeat.store.manifest import load_manifest
from streamfeat.store.verify import check_quickly
from streamfeat.stream.chunk_source import ChunkSource, StoredSource
from streamfeat.stream.chunks import ChunkPool
from streamfeat.stream.epoch_plan import EpochPlan
from streamfeat.stream.featurize import Allocate, Arrays, Featurizer, allocate_buffers
from streamfeat.stream.order import EpochOrder, lanes_of_rank, steps_per_epoch
from streamfeat.stream.prefetch import Prefetcher


class StreamState(Frozen):
    """The position of a stream and its identity. A stream with another identity rejects the state."""

    known_format = ("format", 1)

    format: Literal[1] = 1
    fingerprint: str  # of the dataset
    split: SplitName
    objective: Objective
    mask_policy: MaskPolicy  # compared only under the masked objective
    seed: int
    batch_windows: int
    packings: int = Field(ge=0)  # training packings when the run began; 0: live, epoch e reads packing e
    hidden_times: float = 0.1  # that of every stream of an earlier version
    position: int = Field(ge=0)  # global batches delivered in total


class WindowStream:
    """Shuffled batches of windows, decoded and masked in background threads.

        with WindowStream("OUT", objective="causal", batch_windows=64) as stream:
            for batch in stream:  # one epoch
                batch["item"], batch["target_item"]  # (rows, window_len)

    Iterating yields the rest of the current epoch, as dicts of NumPy arrays (`featurize.TOKEN_ARRAYS` and
    `WINDOW_ARRAYS` list them). Afterwards the position is at the first batch of the next epoch. Order and masks are
    pure functions of (seed, epoch, window, token), so they are the same for any number of threads and ranks. A new
    iteration ends the one before. Validation reads the same batches in every epoch.
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
        hidden_times: float = 0.1,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 1,
        copy: bool = False,
        allocate: Allocate | None = None,
        source: ChunkSource | None = None,
    ) -> None:
        """Opens the dataset at `path`.

        batch_windows: windows of a global batch; each of `world_size` ranks gets its share of them.
        hidden_times: causal training: the share of segments in which no token is told the time of its target.
        copy: yield new arrays. Without it a batch is valid until the next one is requested.
        allocate: (shape, dtype) → array, creates the reused memory of batches, for instance pinned; None: np.empty.
        source: the source of training windows; None: the packings of the dataset.

        Raises ConfigError if the arguments are wrong, the ranks cannot share a batch or the dataset has no packing, and
        the errors of `load_manifest`.
        """
        options: dict[str, Any] = {
            "objective": objective,
            "mask_policy": mask_policy,
            "batch_windows": batch_windows,
            "seed": seed,
            "split": split,
            "hidden_times": hidden_times,
            "rank": rank,
            "world_size": world_size,
            "threads": threads,
        }
        self.config = validated(StreamConfig, options, "WindowStream")
        self.manifest = load_manifest(path)
        self.schema = self.manifest.data_schema
        self._lanes = lanes_of_rank(batch_windows, rank, world_size)
        self._root = Path(path).absolute()  # the store is read later, maybe after a chdir
        self._checked: set[int] = set()  # packings whose files were checked
        self._source: ChunkSource = StoredSource(self._root, self.manifest, split) if source is None else source
        if not self._source.live:
            self.manifest.packing_of(split, 0)
        self._copy = copy
        self._allocate: Allocate = np.empty if allocate is None else allocate
        self._packings = 0 if self._source.live else self.manifest.splits["training"].packings
        self._position = 0
        self._prefetcher: Prefetcher | None = None
        self._pool: ChunkPool | None = None
        self._iteration: weakref.ref[Generator[Arrays]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch; the same for every rank."""
        return steps_per_epoch(self.manifest.splits[self.config.split].windows, self.config.batch_windows)

    @property
    def position(self) -> int:
        """Global batches delivered in total, over all epochs."""
        return self._position

    @property
    def wait_s(self) -> float:
        """Seconds that the consumer has waited for batches in total."""
        return self._prefetcher.wait_s if self._prefetcher else 0.0

    def __repr__(self) -> str:
        config = self.config
        return (
            f"WindowStream({str(self._root)!r}, {config.objective}, {config.split}: {self.steps_per_epoch:,} batches "
            f"of {config.batch_windows:,} windows an epoch, {self._position:,} delivered)"
        )

    def state_dict(self) -> dict[str, Any]:
        """The state for `load_state_dict`: JSON values; it counts only delivered batches."""
        return self._state().model_dump(mode="json")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues exactly after the batches that were delivered when `state` was taken, with any rank and world size.

        Raises ConfigError if `state` is not a state, or with both values if it belongs to another stream;
        FormatVersionError if a newer streamfeat saved it.
        """
        saved = validated(StreamState, state, "stream state")
        here = self._state()
        names = ["fingerprint", "split", "objective", "seed", "batch_windows"]
        names.append("mask_policy" if here.objective == "masked" else "hidden_times")
        differing = [name for name in names if getattr(saved, name) != getattr(here, name)]
        if differing:
            pairs = ", ".join(f"{name} {getattr(saved, name)!r} (here {getattr(here, name)!r})" for name in differing)
            raise ConfigError(f"the stream state was saved with {pairs}; resume with the same values and dataset")
        if saved.split == "training" and (saved.packings == 0) != self._source.live:
            kinds = ("on packings built beforehand", "live")
            raise ConfigError(
                f"the stream state was saved {kinds[saved.packings == 0]} (here the stream reads "
                f"{kinds[self._source.live]}); resume {'with' if saved.packings == 0 else 'without'} --live"
            )
        available = self.manifest.splits["training"].packings
        if saved.packings > available:
            raise ConfigError(
                f"the stream state was saved with {saved.packings} packings (here {available}); "
                f"build the dataset with --packings {saved.packings}"
            )
        self._end_iteration()
        self._packings = saved.packings
        self._position = saved.position

    def __iter__(self) -> Iterator[Arrays]:
        self._end_iteration()
        iteration = self._rest_of_epoch()
        self._iteration = weakref.ref(iteration)
        return iteration

    def close(self) -> None:
        """Ends the current iteration, if any, and closes all files. A new iteration opens them again."""
        self._end_iteration()
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> "WindowStream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _rest_of_epoch(self) -> Generator[Arrays]:
        if not self.steps_per_epoch:
            return
        epoch, first_step = divmod(self._position, self.steps_per_epoch)
        if self.config.split == "validation":  # the same in every epoch
            epoch = packing = 0
        else:
            packing = epoch if self._source.live else epoch % self._packings
        plan = EpochPlan(self._order(epoch), self._lanes)
        prefetcher, pool = self._opened(plan.num_slots)
        self._check_files(packing)
        pool.open(packing)
        with contextlib.closing(prefetcher.batches(plan, first_step, epoch)) as batches:
            for buffers in batches:
                self._position += 1
                self._source.advance(self._position, pool.forget)
                yield {name: array.copy() if self._copy else array for name, array in buffers.arrays.items()}

    def _check_files(self, packing: int) -> None:
        """Raises DamagedError if a stored packing is not complete; before its first batch, once for each packing."""
        if not self._source.live and packing not in self._checked:
            check_quickly(self._root, self.manifest, f"{WINDOWS}/{self.config.split}/{packing}")
            self._checked.add(packing)

    def _order(self, epoch: int) -> EpochOrder:
        counts = self.manifest.splits[self.config.split]
        return EpochOrder(
            seed=self.config.seed,
            split=self.config.split,
            epoch=epoch,
            num_windows=counts.windows,
            chunk_windows=counts.chunk_windows,
            shard_windows=counts.shard_windows,
            batch_windows=self.config.batch_windows,
        )

    def _opened(self, num_slots: int) -> tuple[Prefetcher, ChunkPool]:
        """The threads' memory. It is allocated at the first batch and kept."""
        if self._prefetcher is None or self._pool is None:
            rows = self.config.batch_windows // self.config.world_size
            # The consumer holds one batch, one is ready, and each thread fills one.
            ring = [
                allocate_buffers(rows, self.schema.window_len, self._allocate) for _ in range(self.config.threads + 2)
            ]
            self._pool = ChunkPool(self._source, self.manifest, self.config.split, num_slots)
            self._prefetcher = Prefetcher(self._pool, Featurizer(self.manifest, self.config), ring, self.config.threads)
        return self._prefetcher, self._pool

    def _state(self) -> StreamState:
        return StreamState(
            fingerprint=self.manifest.fingerprint,
            split=self.config.split,
            objective=self.config.objective,
            mask_policy=self.config.mask_policy,
            seed=self.config.seed,
            batch_windows=self.config.batch_windows,
            hidden_times=self.config.hidden_times,
            packings=self._packings,
            position=self._position,
        )

    def _end_iteration(self) -> None:
        iteration = self._iteration() if self._iteration is not None else None
        if iteration is not None:
            iteration.close()
