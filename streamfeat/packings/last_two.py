"""Validation windows of `last:2`: the most recent tokens of every user that has a validation target, never cut.

Where they lie is a pure function of how much is held out, the partitions and the seed: it can be worked out again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import BuildConfig
from streamfeat.kernels.first_fit import first_fit, room_tree
from streamfeat.packings.window_task import SEGMENTS_FILE, WindowTask
from streamfeat.packings.windows import layout_users, packing_order, read_partition_offsets
from streamfeat.schema import Schema
from streamfeat.store.array_files import write_arrays
from streamfeat.store.histories import read_held_out
from streamfeat.store.manifest import SplitCounts


@dataclass(frozen=True)
class Segments:
    """Where the segments lie, by place."""

    users: NDArray[np.int64]  # (segments,)
    starts: NDArray[np.int64]  # (segments,): the first token of each, windows counted end to end
    events: NDArray[np.int64]  # (segments,): that the user validates with, before the crop
    num_windows: int


def place_segments(root: Path, config: BuildConfig) -> Segments:
    """First-fit in the order of packing 0: each user's segment goes into the first window that has room for it."""
    edges = read_partition_offsets(root)
    validation_events = read_held_out(root).validation_events
    users, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for partition in packing_order(config, "validation", 0, len(edges) - 1).tolist():
        first, last = edges[partition : partition + 2].tolist()
        laid = layout_users(first, validation_events[first:last], config, "validation", 0)
        users.append(laid.users)
        lengths.append(laid.lengths)
    length = np.concatenate(lengths)
    starts = np.empty_like(length)
    # At most one of first-fit's windows is half empty or more: this many can hold all.
    most = min(2 * int(length.sum()) // config.window_len + 1, len(length))
    num_windows = first_fit(length, config.window_len, room_tree(most, config.window_len), starts)
    order = np.argsort(starts, kind="stable")
    user = np.concatenate(users)[order]
    return Segments(user, starts[order], validation_events[user], num_windows)


def segment_tasks(
    root: Path, config: BuildConfig, schema: Schema, counts: SplitCounts, segments: Segments, digest: str
) -> list[WindowTask]:
    """The tasks that write the segments, in shard order; leaves the segments in a file for them."""
    write_arrays(root, SEGMENTS_FILE, {
        "users": segments.users, "starts": segments.starts, "events": segments.events
    })  # fmt: skip
    edges = read_partition_offsets(root)
    order = packing_order(config, "validation", 0, len(edges) - 1)
    shard_tokens = counts.shard_windows * config.window_len
    tasks = []
    for shard in range(-(-counts.windows // counts.shard_windows)):
        first, last = np.searchsorted(segments.starts, [shard * shard_tokens, (shard + 1) * shard_tokens]).tolist()
        touched = np.unique(np.searchsorted(edges, segments.users[first:last], side="right") - 1)
        tasks.append(WindowTask(
            split="validation", packing=0, shard=shard, num_windows=counts.windows,
            chunk_windows=counts.chunk_windows, shard_windows=counts.shard_windows,
            partitions=tuple(order[np.isin(order, touched)].tolist()), partition_starts=(), segments=(first, last),
            data_schema=schema, config=config, digest=digest,
        ))  # fmt: skip
    return tasks
