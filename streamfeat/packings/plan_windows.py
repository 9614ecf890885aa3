"""Where every partition lies in a packing's token stream, and the window tasks that follow from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import BuildConfig
from streamfeat.packings.last_two import Segments, place_segments, segment_tasks
from streamfeat.packings.window_task import WindowTask
from streamfeat.packings.windows import longest_segment, packing_order, read_partition_offsets, window_specs
from streamfeat.schema import Schema
from streamfeat.store.histories import read_held_out
from streamfeat.store.layout import WINDOWS, create_arrays, create_group
from streamfeat.store.manifest import SplitCounts
from streamfeat.store.metadata import MAX_CHUNKS_PER_SHARD

SplitLabel = Literal["training", "validation"]
MIN_TRAINING_CHUNKS = 96  # chunk_windows is halved while training has fewer


@dataclass(frozen=True)
class Extent:
    """Users, events and tokens (one packing's) of each partition, of one split: (partitions,) int64 each."""

    users: NDArray[np.int64]
    events: NDArray[np.int64]
    tokens: NDArray[np.int64]


def plan_windows(
    root: Path, config: BuildConfig, schema: Schema, fingerprint: str
) -> tuple[dict[SplitLabel, SplitCounts], list[WindowTask]]:
    """The sizes of both splits, and every window task of all packings; a build and a repair have the same ones.

    Reads histories and what is held out alone; under `last:2` leaves the segments in a file for the tasks.
    """
    extents = read_extents(root, config)
    segments = place_segments(root, config) if config.holds_out_last else None
    splits = count_splits(config, extents, segments)
    tasks: list[WindowTask] = []
    for split, counts in splits.items():
        for packing in range(counts.packings):
            if split == "validation" and segments is not None:
                tasks += segment_tasks(root, config, schema, counts, segments, fingerprint)
            else:
                tasks += window_tasks(config, schema, split, packing, counts, extents[split], fingerprint)
    return splits, tasks


def create_packings(root: Path, config: BuildConfig, schema: Schema, splits: dict[SplitLabel, SplitCounts]) -> None:
    """Write the metadata of `windows.zarr` below `root`: its groups and the arrays of all packings, no chunk."""
    facts = schema.attributes()
    create_group(root / WINDOWS, facts)
    for split, counts in splits.items():
        create_group(root / WINDOWS / split, facts | {"split": split})
        for packing in range(counts.packings):
            specs = window_specs(schema, counts.windows, counts.chunk_windows, counts.shard_windows, config.compression)
            group = root / WINDOWS / split / str(packing)
            create_arrays(group, specs, facts | {"split": split, "packing": packing})


def read_extents(root: Path, config: BuildConfig) -> dict[SplitLabel, Extent]:
    """What each partition brings to each split, from what is held out alone."""
    edges = read_partition_offsets(root)
    held_out = read_held_out(root)
    extents: dict[SplitLabel, Extent] = {}
    for split in ("training", "validation"):
        events = held_out.events_of(split)
        tokens = np.minimum(events + 1, longest_segment(config, split))
        sums = [np.concatenate([[0], np.cumsum(np.where(events > 0, values, 0))]) for values in (1, events, tokens)]
        extents[split] = Extent(*(np.diff(total[edges]) for total in sums))
    return extents


def count_splits(
    config: BuildConfig, extents: dict[SplitLabel, Extent], segments: Segments | None = None
) -> dict[SplitLabel, SplitCounts]:
    """Windows, chunk and shard sizes of both splits; with `segments`, these are validation's."""
    windows = {split: -(-int(extent.tokens.sum()) // config.window_len) for split, extent in extents.items()}
    if segments is not None:
        windows["validation"] = segments.num_windows
    chunk = config.chunk_windows
    while chunk > 1 and -(-windows["training"] // chunk) < MIN_TRAINING_CHUNKS:
        chunk = -(-chunk // 2)
    # Halving an odd number could leave the shard no multiple of the chunk.
    while config.shard_windows % chunk:
        chunk -= 1
    counts: dict[SplitLabel, SplitCounts] = {}
    for split, extent in extents.items():
        counts[split] = SplitCounts(
            users=int(extent.users.sum()),
            events=int(extent.events.sum()),
            tokens=int(extent.tokens.sum()),
            windows=windows[split],
            chunk_windows=chunk,
            # No reader takes a larger index of a shard, and of halved chunks a shard holds more.
            shard_windows=min(
                config.shard_windows, max(-(-windows[split] // chunk), 1) * chunk, MAX_CHUNKS_PER_SHARD * chunk
            ),
            packings=config.packings if split == "training" else 1,
        )
    return counts


def window_tasks(
    config: BuildConfig, schema: Schema, split: SplitLabel, packing: int, counts: SplitCounts, extent: Extent,
    digest: str,
) -> list[WindowTask]:  # fmt: skip
    """The tasks of one packing, in shard order; each names the partitions that its tokens come from."""
    order = packing_order(config, split, packing, len(extent.tokens))
    order = order[extent.tokens[order] > 0]
    ends = np.cumsum(extent.tokens[order])
    starts = ends - extent.tokens[order]
    shard_tokens = counts.shard_windows * config.window_len
    tasks = []
    for shard in range(-(-counts.windows // counts.shard_windows)):
        low, high = shard * shard_tokens, (shard + 1) * shard_tokens
        first, last = np.searchsorted(ends, low, side="right"), np.searchsorted(starts, high, side="left")
        tasks.append(WindowTask(
            split=split, packing=packing, shard=shard, num_windows=counts.windows,
            chunk_windows=counts.chunk_windows, shard_windows=counts.shard_windows,
            partitions=tuple(order[first:last].tolist()), partition_starts=tuple(starts[first:last].tolist()),
            data_schema=schema, config=config, digest=digest,
        ))  # fmt: skip
    return tasks
