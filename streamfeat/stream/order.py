"""The order of windows: which rank reads which window in which step. A pure function of the run's seed and the epoch.

The shards of a packing are permuted and taken four at a time; the chunks of the four are permuted together, and so are
the windows inside a chunk. Full chunks are dealt to lanes in rounds, one chunk to each lane. The chunks of the last,
incomplete round are dealt window by window. A global batch takes the next `batch_windows / num_lanes` windows of every
lane. Rank r of W reads the lanes r, r + W, ...
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import SplitName
from streamfeat.errors import ConfigError
from streamfeat.kernels.draws import (
    CHUNK_ORDER,
    SHARD_ORDER,
    SPLIT_COUNTERS,
    WINDOW_ORDER,
    draws,
    permutation,
)

NO_WINDOW = -1  # an empty window: all PAD
_LANES = (24, 16, 12, 8, 6, 4, 3, 2, 1)
SHARDS_TOGETHER = 4  # shards whose chunks are permuted together


def num_lanes(batch_windows: int) -> int:
    """L: the largest number of lanes that divides the global batch. It depends only on the batch size."""
    return next(lanes for lanes in _LANES if batch_windows % lanes == 0)


def steps_per_epoch(num_windows: int, batch_windows: int) -> int:
    """Global batches of an epoch. The last one is filled up with empty windows."""
    return -(-num_windows // batch_windows)


def lanes_of_rank(batch_windows: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """The lanes that a rank reads, ascending. Raises ConfigError if not every rank gets the same number of lanes."""
    lanes = num_lanes(batch_windows)
    if lanes % world_size:
        fitting = [str(size) for size in range(1, lanes + 1) if lanes % size == 0]
        raise ConfigError(
            f"{world_size} ranks cannot share a global batch of {batch_windows} windows evenly: it is read in "
            f"{lanes} lanes; use a world size of {', '.join(fitting)}, or another batch size"
        )
    return np.arange(rank, lanes, world_size)


class EpochOrder:
    """The order of one epoch. A lane's windows have the places k = 0 .. lane_len - 1."""

    def __init__(
        self,
        *,
        seed: int,
        split: SplitName,
        epoch: int,
        num_windows: int,
        chunk_windows: int,
        shard_windows: int,
        batch_windows: int,
    ) -> None:
        self.num_windows = num_windows
        self.chunk_windows = chunk_windows
        self.num_lanes = num_lanes(batch_windows)
        self.windows_per_lane = batch_windows // self.num_lanes  # of one global batch
        self.num_steps = steps_per_epoch(num_windows, batch_windows)
        self.lane_len = self.num_steps * self.windows_per_lane
        self._key = (seed, SPLIT_COUNTERS[split], epoch)
        self.chunks_per_shard = shard_windows // chunk_windows

    @cached_property
    def chunks(self) -> NDArray[np.int64]:
        """All chunks in permuted order; a chunk with fewer windows, if any, comes last."""
        seed, split, epoch = self._key
        num_chunks = -(-self.num_windows // self.chunk_windows)
        chunk = np.arange(num_chunks)
        shard = chunk // self.chunks_per_shard
        shard_order = permutation(seed, SHARD_ORDER, split, epoch, num=-(-num_chunks // self.chunks_per_shard))
        place = np.argsort(shard_order)[shard]
        draw = draws(seed, CHUNK_ORDER, split, epoch, num=num_chunks)
        # Sorts by draw inside each group of shards, for all groups at once; equal draws by place, then chunk.
        order = np.lexsort((chunk, place, draw, place // SHARDS_TOGETHER))
        if self.num_windows % self.chunk_windows:
            order = np.append(order[order != num_chunks - 1], num_chunks - 1)
        return order

    @property
    def num_rounds(self) -> int:
        """The number of complete rounds. In each of them every lane reads one whole chunk."""
        return self.num_windows // self.chunk_windows // self.num_lanes

    def chunk_steps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(chunks,) each: the first and the last step that reads each entry of `chunks`."""
        in_rounds = self.num_rounds * self.chunk_windows
        dealt = np.arange(self.num_rounds * self.num_lanes) // self.num_lanes * self.chunk_windows
        left = self.chunks[len(dealt) :]
        ends = np.cumsum(np.minimum(self.chunk_windows, self.num_windows - left * self.chunk_windows))
        starts = np.concatenate([[0], ends[:-1]])[: len(ends)].astype(np.int64)
        firsts = np.concatenate([dealt, in_rounds + starts // self.num_lanes])
        lasts = np.concatenate([dealt + self.chunk_windows - 1, in_rounds + (ends - 1) // self.num_lanes])
        return firsts // self.windows_per_lane, lasts // self.windows_per_lane

    def chunk_order(self, chunk: int) -> NDArray[np.int64]:
        """The windows of a chunk in reading order."""
        seed, split, epoch = self._key
        first = chunk * self.chunk_windows
        num = min(self.chunk_windows, self.num_windows - first)
        return first + permutation(seed, WINDOW_ORDER, split, epoch, first=first, num=num)

    @cached_property
    def _left_over(self) -> NDArray[np.int64]:
        """(k, lane): the windows after the complete rounds, dealt one by one, then NO_WINDOW."""
        chunks = self.chunks[self.num_rounds * self.num_lanes :]
        windows = np.concatenate([self.chunk_order(chunk) for chunk in chunks.tolist()] or [chunks])
        places = (self.lane_len - self.num_rounds * self.chunk_windows) * self.num_lanes
        dealt = np.full(places, NO_WINDOW, np.int64)
        dealt[: len(windows)] = windows
        return dealt.reshape(-1, self.num_lanes)

    def lane_windows(self, lanes: NDArray[np.int64], first: int, stop: int) -> NDArray[np.int64]:
        """(len(lanes), stop - first): the windows at places first .. stop - 1 of each lane; NO_WINDOW: empty."""
        in_rounds = self.num_rounds * self.chunk_windows
        parts = []
        if first < min(stop, in_rounds):
            rounds = range(first // self.chunk_windows, (min(stop, in_rounds) - 1) // self.chunk_windows + 1)
            dealt = self.chunks[[[turn * self.num_lanes + lane for turn in rounds] for lane in lanes.tolist()]]
            windows = np.stack([np.concatenate([self.chunk_order(c) for c in row]) for row in dealt.tolist()])
            skipped = rounds.start * self.chunk_windows
            parts.append(windows[:, first - skipped : stop - skipped])
        if stop > in_rounds:
            parts.append(self._left_over[max(first - in_rounds, 0) : stop - in_rounds, lanes].T)
        return np.concatenate(parts, axis=1) if parts else np.empty((len(lanes), 0), np.int64)

    def slots(self, lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(len(lanes), windows_per_lane): the places of these lanes' windows in every global batch."""
        slots: NDArray[np.int64] = lanes[:, None] * self.windows_per_lane + np.arange(self.windows_per_lane)
        return slots

    def batch(self, step: int, lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(len(lanes), windows_per_lane): the windows of these lanes in global batch `step`."""
        first = step * self.windows_per_lane
        return self.lane_windows(lanes, first, first + self.windows_per_lane)
