"""Validation windows of `last:2` and `time:…`: the latest tokens of every user with a validation target, never cut.

Their places are a pure function of the held-out events, the partitions and the seed, so they can be computed again.
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
    """The places of the segments, in order of place."""

    users: NDArray[np.int64]  # (segments,)
    starts: NDArray[np.int64]  # (segments,): the first token of each, counted over all windows
    events: NDArray[np.int64]  # (segments,): validation events of the user, before the crop
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
    # First-fit leaves at most one window half empty or more, so this number of windows is enough.
    most = min(2 * int(length.sum()) // config.window_len + 1, len(length))
    num_windows = first_fit(length, config.window_len, room_tree(most, config.window_len), starts)
    order = np.argsort(starts, kind="stable")
    user = np.concatenate(users)[order]
    return Segments(user, starts[order], validation_events[user], num_windows)


def segment_tasks(
    root: Path, config: BuildConfig, schema: Schema, counts: SplitCounts, segments: Segments, digest: str
) -> list[WindowTask]:
    """The tasks that write the segments, in shard order. Writes the file of segments that the tasks read."""
    write_arrays(root, SEGMENTS_FILE, {"users": segments.users, "starts": segments.starts, "events": segments.events})
    edges = read_partition_offsets(root)
    order = packing_order(config, "validation", 0, len(edges) - 1)
    shard_tokens = counts.shard_windows * config.window_len
    tasks = []
    for shard in range(-(-counts.windows // counts.shard_windows)):
        first, last = np.searchsorted(segments.starts, [shard * shard_tokens, (shard + 1) * shard_tokens]).tolist()
        touched = np.unique(np.searchsorted(edges, segments.users[first:last], side="right") - 1)
        tasks.append(
            WindowTask(
                split="validation",
                packing=0,
                shard=shard,
                num_windows=counts.windows,
                chunk_windows=counts.chunk_windows,
                shard_windows=counts.shard_windows,
                partitions=tuple(order[np.isin(order, touched)].tolist()),
                partition_starts=(),
                segments=(first, last),
                data_schema=schema,
                config=config,
                digest=digest,
            )
        )
    return tasks
