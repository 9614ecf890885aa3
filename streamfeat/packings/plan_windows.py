"""Computes the place of every partition in a packing's token stream, and the window tasks."""

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
MIN_TRAINING_CHUNKS = 96  # chunk_windows is halved until training has so many chunks


@dataclass(frozen=True)
class Extent:
    """Users, events and tokens (of one packing) of each partition in one split: (partitions,) int64 each."""

    users: NDArray[np.int64]
    events: NDArray[np.int64]
    tokens: NDArray[np.int64]


def plan_windows(
    root: Path, config: BuildConfig, schema: Schema, fingerprint: str
) -> tuple[dict[SplitLabel, SplitCounts], list[WindowTask]]:
    """The sizes of both splits, and every window task of all packings. They are the same in a build and in a repair.

    Reads only histories and held-out counts. Unless whole users validate, writes a file of segments for the
    tasks.
    """
    extents = read_extents(root, config)
    segments = place_segments(root, config) if config.validates_one_event else None
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
    """Writes the metadata of `windows.zarr` below `root`: its groups and the arrays of all packings, without chunks."""
    facts = schema.attributes()
    create_group(root / WINDOWS, facts)
    for split, counts in splits.items():
        create_group(root / WINDOWS / split, facts | {"split": split})
        for packing in range(counts.packings):
            specs = window_specs(schema, counts.windows, counts.chunk_windows, counts.shard_windows, config.compression)
            group = root / WINDOWS / split / str(packing)
            create_arrays(group, specs, facts | {"split": split, "packing": packing})


def read_extents(root: Path, config: BuildConfig) -> dict[SplitLabel, Extent]:
    """The extent of each partition in each split, computed from the held-out counts."""
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
    """Windows, chunk and shard sizes of both splits. If given, `segments` determine the windows of validation."""
    windows = {split: -(-int(extent.tokens.sum()) // config.window_len) for split, extent in extents.items()}
    if segments is not None:
        windows["validation"] = segments.num_windows
    chunk = config.chunk_windows
    while chunk > 1 and -(-windows["training"] // chunk) < MIN_TRAINING_CHUNKS:
        chunk = -(-chunk // 2)
    # After halving an odd number, the shard size may not be a multiple of the chunk size.
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
            # Readers limit the index of a shard. A shard of halved chunks holds more of them.
            shard_windows=min(
                config.shard_windows, max(-(-windows[split] // chunk), 1) * chunk, MAX_CHUNKS_PER_SHARD * chunk
            ),
            packings=config.packings if split == "training" else 1,
        )
    return counts


def window_tasks(
    config: BuildConfig,
    schema: Schema,
    split: SplitLabel,
    packing: int,
    counts: SplitCounts,
    extent: Extent,
    digest: str,
) -> list[WindowTask]:
    """The tasks of one packing, in shard order. Each task lists the partitions of its tokens."""
    order = packing_order(config, split, packing, len(extent.tokens))
    order = order[extent.tokens[order] > 0]
    ends = np.cumsum(extent.tokens[order])
    starts = ends - extent.tokens[order]
    shard_tokens = counts.shard_windows * config.window_len
    tasks = []
    for shard in range(-(-counts.windows // counts.shard_windows)):
        low, high = shard * shard_tokens, (shard + 1) * shard_tokens
        first, last = np.searchsorted(ends, low, side="right"), np.searchsorted(starts, high, side="left")
        tasks.append(
            WindowTask(
                split=split,
                packing=packing,
                shard=shard,
                num_windows=counts.windows,
                chunk_windows=counts.chunk_windows,
                shard_windows=counts.shard_windows,
                partitions=tuple(order[first:last].tolist()),
                partition_starts=tuple(starts[first:last].tolist()),
                data_schema=schema,
                config=config,
                digest=digest,
            )
        )
    return tasks
