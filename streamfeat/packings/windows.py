"""Window task: makes one shard of a packing from `histories.zarr` and `users.parquet`.

Later packings, live training and repair run the same task. The layout is computed from the number of held-out events of
each history, so no earlier shard is needed. The places of validation segments (`last:2`, `time:…`) depend on all users;
the coordinator computes them once for all tasks (`last_two.py`).
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import BuildConfig, SplitName
from streamfeat.kernels.draws import CROP, PARTITION_ORDER, SPLIT_COUNTERS, USER_ORDER, draws, permutation
from streamfeat.kernels.pack import LaidUsers, gather_tokens, token_sources
from streamfeat.packings.window_task import SEGMENTS_FILE, WindowTask
from streamfeat.schema import EVENT_FIELDS, Schema
from streamfeat.store.array_files import map_arrays
from streamfeat.store.histories import read_held_out
from streamfeat.store.layout import HISTORIES, MANIFEST, RECEIPTS, ArraySpec
from streamfeat.store.manifest import load_manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.store.receipts import FileRecord, WindowReceipt, shard_checksums
from streamfeat.store.writer import commit_receipt, read_receipt, write_shard

_PAD_SOURCE = -2  # a token that belongs to no history


def window_specs(
    schema: Schema, num_windows: int, chunk_windows: int, shard_windows: int, compression: Any
) -> list[ArraySpec]:
    """The token arrays of one packing."""
    return [
        ArraySpec(
            name=field.name,
            num_rows=num_windows,
            row_shape=(schema.window_len,),
            dtype=field.dtype,
            chunk_rows=chunk_windows,
            shard_rows=shard_windows,
            fill_value=field.pad,
            dimension_names=("window", "token"),
            compression=compression,
            attributes=field.attributes,
        )
        for field in schema.token_fields()
    ]


def run_window(root: Path, task: WindowTask) -> WindowReceipt:
    """Writes and commits shard `task.shard` of every token array of a packing."""
    return commit_window(root, task.group, task, lay_window(root, task))


def lay_window(root: Path, task: WindowTask) -> dict[str, NDArray[Any]]:
    """The tokens of a shard, from the histories of the dataset `root`: field → (windows, window_len), stored dtype."""
    schema = task.data_schema
    low = task.shard * task.shard_windows
    num_windows = min(task.shard_windows, task.num_windows - low)
    shape = (num_windows, schema.window_len)
    tokens = {field.name: np.full(shape, field.pad, field.dtype) for field in schema.token_fields()}
    first_token = low * schema.window_len
    if _keeps_latest(task.config, task.split):
        rows = slice(*task.segments)
        placed = {name: values[rows] for name, values in map_arrays(root, SEGMENTS_FILE).items()}
        for partition in task.partitions:
            _lay_segments(root, task, partition, placed, first_token, tokens)
    else:
        for partition, start in zip(task.partitions, task.partition_starts, strict=True):
            _lay_partition(root, task, partition, start, first_token, tokens)
    return tokens


def specs_of(task: WindowTask) -> list[ArraySpec]:
    """The arrays of the task's packing."""
    return window_specs(
        task.data_schema, task.num_windows, task.chunk_windows, task.shard_windows, task.config.compression
    )


def commit_window(folder: Path, group: str, task: WindowTask, tokens: dict[str, NDArray[Any]]) -> WindowReceipt:
    """Writes a shard's tokens into the Zarr group `group` below `folder`, then the receipt into its `receipts/`."""
    num_windows = len(tokens["item"])
    files: list[FileRecord] = [
        write_shard(folder, group, spec, task.shard, tokens[spec.name]) for spec in specs_of(task)
    ]
    receipt = WindowReceipt(
        task=task.name,
        digest=task.digest,
        rows=num_windows,
        files=tuple(files),
        split=task.split,
        packing=task.packing,
        shard=task.shard,
    )
    commit_receipt(folder, receipt)
    return receipt


def _lay_partition(
    root: Path, task: WindowTask, partition: int, start: int, low: int, tokens: dict[str, NDArray[Any]]
) -> None:
    """Writes those tokens of one partition's histories that belong to this shard."""
    histories = _histories(root, partition, task.digest)
    events = histories["held_out"].events_of(task.split)
    laid = layout_users(histories["first_user"], events, task.config, task.split, task.packing)
    starts = start + np.concatenate([[0], np.cumsum(laid.lengths)[:-1]])
    _write_tokens(task.data_schema, histories, laid, starts, low, tokens)


def _lay_segments(
    root: Path,
    task: WindowTask,
    partition: int,
    placed: dict[str, NDArray[np.int64]],
    low: int,
    tokens: dict[str, NDArray[Any]],
) -> None:
    """Writes the tokens of this shard's segments whose users are in the partition."""
    edges = _partition_users(root, task.digest)
    mine = (placed["users"] >= edges[partition]) & (placed["users"] < edges[partition + 1])
    users, starts, events = (placed[name][mine] for name in ("users", "starts", "events"))
    # Short segments fill gaps of earlier windows, so a shard can hold a few users of many partitions. Read only these.
    histories = _read_histories(root, int(users.min()), int(users.max()) + 1, task.digest)
    _write_tokens(task.data_schema, histories, _cropped(users, events, task.config, task.split), starts, low, tokens)


def _write_tokens(
    schema: Schema,
    histories: dict[str, Any],
    laid: LaidUsers,
    starts: NDArray[np.int64],
    low: int,
    tokens: dict[str, NDArray[Any]],
) -> None:
    """Writes the tokens that belong to the shard at stream place `low`. Each user's tokens begin at its `starts`."""
    sources = np.full(tokens["item"].size, _PAD_SOURCE, np.int64)
    positions = tokens["position"].ravel().astype(np.int64)
    first_events = histories["offsets"][laid.users - histories["first_user"]]
    token_sources(laid, starts, first_events, low, schema.window_len, sources, tokens["user"].ravel(), positions)
    tokens["position"].ravel()[:] = positions
    for name in EVENT_FIELDS:
        field = schema.field(name)
        gather_tokens(histories[name], sources, histories["base"], field.dtype.type(field.cls), tokens[name].ravel())


def packing_order(config: BuildConfig, split: SplitName, packing: int, num_partitions: int) -> NDArray[np.int64]:
    """(partitions,) int64: the partitions in the packing's order."""
    return permutation(config.seed, PARTITION_ORDER, packing, SPLIT_COUNTERS[split], num=num_partitions)


def layout_users(
    first_user: int, events: NDArray[np.int64], config: BuildConfig, split: SplitName, packing: int
) -> LaidUsers:
    """The users of a partition that have events in `split`, in the packing's order, with crop and length.

    The partition's first user is `first_user`. `events` (users,): of each user, the split uses so many first events.
    """
    counter = SPLIT_COUNTERS[split]
    order = permutation(config.seed, USER_ORDER, packing, counter, first=first_user, num=len(events))
    order = order[events[order] > 0]
    laid = _cropped(order + first_user, events[order], config, split)
    cut = np.flatnonzero(laid.crops)
    if len(cut) and not _keeps_latest(config, split):
        crop_draws = draws(config.seed, CROP, packing, counter, first=first_user, num=len(events))[order[cut]]
        room = (laid.crops[cut] + 1).astype(np.uint64)
        laid.crops[cut] = ((crop_draws >> np.uint64(32)) * room) >> np.uint64(32)
    return laid


def longest_segment(config: BuildConfig, split: SplitName) -> int:
    """The largest number of tokens of one history in a packing, CLS included."""
    return config.window_len if _keeps_latest(config, split) else config.max_crop_len


def _keeps_latest(config: BuildConfig, split: SplitName) -> bool:
    """Whether a long history keeps its latest tokens, to fit into a window. Otherwise its crop is random."""
    return config.validates_one_event and split == "validation"


def _cropped(users: NDArray[np.int64], events: NDArray[np.int64], config: BuildConfig, split: SplitName) -> LaidUsers:
    """The users with their latest tokens."""
    lengths = np.minimum(events + 1, longest_segment(config, split))
    return LaidUsers(users, events + 1 - lengths, lengths)


@lru_cache(maxsize=2)
def _histories(root: Path, partition: int, digest: str) -> dict[str, Any]:
    """One partition's histories. Cached, because consecutive shards share the partition at their border.

    `digest` is part of the cache's key, so that a folder that is built again in the same process is read again.
    """
    first_user, last_user = _partition_users(root, digest)[partition : partition + 2].tolist()
    return _read_histories(root, first_user, last_user, digest) | {
        "held_out": read_held_out(root, first_user, last_user)
    }


def _read_histories(root: Path, first_user: int, last_user: int, digest: str) -> dict[str, Any]:
    """The users' events as stored, with their offsets and first event in the whole array."""
    with _opened(root, "offsets", digest) as reader:
        offsets = reader.read_rows(first_user, last_user + 1)
    base, end = int(offsets[0]), int(offsets[-1])
    columns: dict[str, Any] = {}
    for name in EVENT_FIELDS:
        with _opened(root, name, digest) as reader:
            columns[name] = reader.read_rows(base, end)
    return {"first_user": first_user, "offsets": offsets, "base": base, **columns}


def _opened(root: Path, name: str, digest: str) -> ArrayReader:
    array = f"{HISTORIES}/{name}"
    return ArrayReader(root, array, shard_checksums(_history_files(root, digest), array))


@lru_cache(maxsize=1)
def _history_files(root: Path, digest: str) -> tuple[FileRecord, ...]:
    return _committed_files(root)


def _committed_files(root: Path) -> tuple[FileRecord, ...]:
    """The committed files, from the manifest; during a build, those of histories from receipts."""
    if (root / MANIFEST).exists():
        return load_manifest(root).files()
    tasks = ["offsets", *sorted(path.stem for path in (root / RECEIPTS).glob("history-*.json"))]
    receipts = [read_receipt(root, task) for task in tasks]
    return tuple(file for receipt in receipts if receipt for file in receipt.files)


@lru_cache(maxsize=1)
def _partition_users(root: Path, digest: str) -> NDArray[np.int64]:
    return read_partition_offsets(root)


def read_partition_offsets(root: Path) -> NDArray[np.int64]:
    """(partitions + 1,) int64: partition p holds the users from offset p up to, not including, offset p + 1."""
    array = f"{HISTORIES}/partition_offsets"
    with ArrayReader(root, array, shard_checksums(_committed_files(root), array)) as reader:
        return reader.read_rows(0, reader.shape[0])
