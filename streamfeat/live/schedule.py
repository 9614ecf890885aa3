"""Computes which shards a run needs, in which order and for how long, and how much disk space they take."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from streamfeat.store.codecs import index_bytes, max_encoded_bytes
from streamfeat.store.manifest import Manifest, SplitCounts
from streamfeat.store.receipts import FileRecord
from streamfeat.stream.order import SHARDS_TOGETHER, EpochOrder, num_lanes, steps_per_epoch

BLOCK = 4096  # file systems allocate space in blocks of so many bytes


@dataclass(frozen=True)
class Need:
    """One shard of one packing, and the first and last global batch that read it."""

    number: int  # 0, 1, … in the order in which shards are first needed
    packing: int
    shard: int
    first_position: int  # the first batch that reads it
    last_position: int  # the last batch that reads it; the shard is past when this batch was delivered


def needs(counts: SplitCounts, *, seed: int, batch_windows: int, start: int, stop: int) -> Iterator[Need]:
    """The shards that the batches `start` to `stop` - 1 read, by first use, then by place in the chunk order."""
    steps = steps_per_epoch(counts.windows, batch_windows)
    if not steps:
        return
    numbers = count()
    for epoch in range(start // steps, -(-stop // steps)):
        order = EpochOrder(
            seed=seed,
            split="training",
            epoch=epoch,
            num_windows=counts.windows,
            chunk_windows=counts.chunk_windows,
            shard_windows=counts.shard_windows,
            batch_windows=batch_windows,
        )
        firsts, lasts = (epoch * steps + edges for edges in order.chunk_steps())
        read = (lasts >= start) & (firsts < stop)
        shards = order.chunks[read] // order.chunks_per_shard
        firsts, lasts = np.maximum(firsts[read], start), lasts[read]
        # First uses ascend in chunk order, so a shard's first place is its first use.
        found, places = np.unique(shards, return_index=True)
        for shard, place in sorted(zip(found.tolist(), places.tolist(), strict=True), key=lambda pair: pair[1]):
            yield Need(next(numbers), epoch, shard, int(firsts[place]), int(lasts[shards == shard].max()))


class Schedule:
    """The needs of a run. They are computed on demand, packing by packing, and kept."""

    def __init__(self, counts: SplitCounts, *, seed: int, batch_windows: int, start: int, stop: int) -> None:
        self._rest = needs(counts, seed=seed, batch_windows=batch_windows, start=start, stop=stop)
        self._known: list[Need] = []
        self._by_shard: dict[tuple[int, int], Need] = {}

    def at(self, number: int) -> Need | None:
        """The need with this number; None after the last."""
        while len(self._known) <= number:
            if self._extend() is None:
                return None
        return self._known[number]

    def of(self, packing: int, shard: int) -> Need | None:
        """The need of a shard; None if no batch of the run reads it."""
        # All needs of a packing are known when a need of a later packing is.
        while (packing, shard) not in self._by_shard and (not self._known or self._known[-1].packing <= packing):
            if self._extend() is None:
                break
        return self._by_shard.get((packing, shard))

    def _extend(self) -> Need | None:
        need = next(self._rest, None)
        if need is not None:
            self._known.append(need)
            self._by_shard[need.packing, need.shard] = need
        return need


def max_shards_of_a_batch(counts: SplitCounts, batch_windows: int) -> int:
    """The largest number of shards that are between their first and last use at any batch, for every seed and epoch."""
    lanes = num_lanes(batch_windows)
    places = batch_windows // lanes
    rounds = -(-(places - 1) // counts.chunk_windows) + 1  # the windows after the last complete round count as one more
    chunks = lanes * rounds
    # Consecutive chunks lie in groups of four shards. All groups are full, except that one may lack up to one shard of
    # full chunks. All shards of such a group may be in use. The short chunk's shard is in use until the epoch's end.
    per_shard = counts.shard_windows // counts.chunk_windows
    groups = (chunks - 2 + per_shard) // (SHARDS_TOGETHER * per_shard) + 2
    num_shards = -(-counts.windows // counts.shard_windows)
    return min(SHARDS_TOGETHER * groups + 1, num_shards)


def least_disk_bytes(manifest: Manifest, batch_windows: int, producers: int, *, world_size: int = 1) -> int:
    """The smallest `disk_bytes` of a live run: room for the shards of a batch and one for each producer; at most for
    all shards of a packing."""
    counts = manifest.splits["training"]
    num_shards = -(-counts.windows // counts.shard_windows)
    held = min(max_shards_of_a_batch(counts, batch_windows) + max(producers, 1), num_shards)
    # Two packings: the next one begins while one is read to its end.
    return fixed_bytes(world_size) + 2 * packing_bytes(manifest) + held * max_shard_bytes(manifest)


def max_shard_bytes(manifest: Manifest) -> int:
    """The largest size of a shard on disk: its files, folders, receipt and lock."""
    counts, schema = manifest.splits["training"], manifest.data_schema
    chunks = counts.shard_windows // counts.chunk_windows
    total = 0
    for field in schema.token_fields():
        chunk_bytes = counts.chunk_windows * schema.window_len * field.dtype.itemsize
        file = chunks * max_encoded_bytes(chunk_bytes, manifest.config.compression) + index_bytes(chunks)
        total += _file_bytes(file) + BLOCK  # c/<n>
    return total + _receipt_bytes()


def shard_bytes(files: tuple[FileRecord, ...]) -> int:
    """The largest size of a committed shard on disk."""
    return sum(_file_bytes(file.size) + BLOCK for file in files) + _receipt_bytes()


def packing_bytes(manifest: Manifest) -> int:
    """The size of a packing without shards: its group, and for each array its folder, `c` and `zarr.json`, which exists
    twice while it is written."""
    return BLOCK * (3 + 4 * len(manifest.data_schema.token_fields()))


def fixed_bytes(world_size: int) -> int:
    """The size of OUT/live without packings: folders, `run.json`, and the ranks' files, which exist twice while they
    are replaced."""
    return BLOCK * (14 + 2 * world_size)


def _file_bytes(size: int) -> int:
    return -(-size // BLOCK) * BLOCK + BLOCK  # one more block for the file's extents


def _receipt_bytes() -> int:
    return 3 * BLOCK  # the receipt, its temporary file, and its part of the growing folders
