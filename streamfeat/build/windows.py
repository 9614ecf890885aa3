"""Window task: one shard of a packing, read from `histories.zarr` alone.

So later packings, live training and repair are this same task. The layout is arithmetic on the offsets:
nothing that was written before is needed.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.build.tasks import WindowTask
from streamfeat.kernels.draws import CROP, SPLIT_COUNTERS, USER_ORDER, draws, permutation
from streamfeat.kernels.pack import gather_tokens, token_sources
from streamfeat.schema import EVENT_FIELDS, Schema
from streamfeat.store.layout import HISTORIES, WINDOWS, ArraySpec
from streamfeat.store.manifest import FileRecord, Receipt
from streamfeat.store.reader import ArrayReader
from streamfeat.store.tables import read_validation_users
from streamfeat.store.writer import commit_receipt, write_shard

_PAD_SOURCE = -2  # a token that no history covers


def window_specs(
    schema: Schema, num_windows: int, chunk_windows: int, shard_windows: int, compression: Any
) -> list[ArraySpec]:
    """The token arrays of one packing."""
    return [
        ArraySpec(
            name=field.name, num_rows=num_windows, row_shape=(schema.window_len,), dtype=field.dtype,
            chunk_rows=chunk_windows, shard_rows=shard_windows, fill_value=field.pad,
            dimension_names=("window", "token"), compression=compression, attributes=field.attributes,
        )
        for field in schema.token_fields()
    ]  # fmt: skip


def run_window(root: Path, task: WindowTask) -> Receipt:
    """Commit shard `task.shard` of every token array of a packing."""
    return commit_window(root, f"{WINDOWS}/{task.split}/{task.packing}", task, lay_window(root, task))


def lay_window(root: Path, task: WindowTask) -> dict[str, NDArray[Any]]:
    """The tokens of a shard, made from the histories of the dataset `root`: field → (windows, window_len) as stored."""
    schema = task.schema_
    low = task.shard * task.shard_windows
    num_windows = min(task.shard_windows, task.num_windows - low)
    shape = (num_windows, schema.window_len)
    tokens = {field.name: np.full(shape, field.pad, field.dtype) for field in schema.token_fields()}
    for partition, start in zip(task.partitions, task.partition_starts, strict=True):
        _lay_partition(root, task, partition, start, low * schema.window_len, tokens)
    return tokens


def commit_window(folder: Path, group: str, task: WindowTask, tokens: dict[str, NDArray[Any]]) -> Receipt:
    """Commit a shard's tokens into the Zarr group `group` below `folder`, the receipt into its `receipts/`."""
    num_windows = len(tokens["item"])
    files: list[FileRecord] = [
        write_shard(folder, group, spec, task.shard, tokens[spec.name])
        for spec in window_specs(
            task.schema_, task.num_windows, task.chunk_windows, task.shard_windows, task.config.compression
        )
    ]
    receipt = Receipt(task=task.name, kind="window", digest=task.digest, rows=num_windows, files=tuple(files), facts={})
    commit_receipt(folder, receipt)
    return receipt


def _lay_partition(
    root: Path, task: WindowTask, partition: int, start: int, low: int, tokens: dict[str, NDArray[Any]]
) -> None:
    """Write the tokens of one partition's histories that fall in this shard."""
    schema = task.schema_
    histories = _histories(root, partition, task.digest)
    users, crops, lengths = layout_users(
        histories["first_user"], histories["offsets"], histories["is_validation"], task.split, task.packing,
        task.config.seed, task.config.max_crop_len,
    )  # fmt: skip
    starts = start + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    num_tokens = tokens["item"].size
    sources = np.full(num_tokens, _PAD_SOURCE, np.int64)
    positions = tokens["position"].ravel().astype(np.int64)
    first_events = histories["offsets"][users - histories["first_user"]]
    token_sources(users, starts, crops, lengths, first_events, low, schema.window_len, sources,
                  tokens["user"].ravel(), positions)  # fmt: skip
    tokens["position"].ravel()[:] = positions
    for name in EVENT_FIELDS:
        field = schema.field(name)
        gather_tokens(histories[name], sources, histories["base"], field.dtype.type(field.cls), tokens[name].ravel())


def layout_users(
    first_user: int, offsets: NDArray[np.int64], is_validation: NDArray[np.bool_], split: str, packing: int,
    seed: int, max_crop_len: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """The users of a partition that belong to `split`, in the packing's order, with crop and length in tokens.

    `offsets` and `is_validation` cover the partition's users alone, the first of whom is `first_user`.
    """
    counter = SPLIT_COUNTERS[split]
    num_users = len(is_validation)
    mine = is_validation == (split == "validation")
    order = permutation(seed, USER_ORDER, packing, counter, first=first_user, num=num_users)
    order = order[mine[order]]
    tokens = np.diff(offsets)[order] + 1
    lengths = np.minimum(tokens, max_crop_len)
    crops = np.zeros_like(lengths)
    cut = np.flatnonzero(lengths < tokens)
    if len(cut):
        crop_draws = draws(seed, CROP, packing, counter, first=first_user, num=num_users)[order[cut]]
        room = (tokens[cut] - lengths[cut] + 1).astype(np.uint64)
        crops[cut] = ((crop_draws >> np.uint64(32)) * room) >> np.uint64(32)
    return order + first_user, crops, lengths


@lru_cache(maxsize=2)
def _histories(root: Path, partition: int, digest: str) -> dict[str, Any]:
    """One partition's histories, kept for the next task: consecutive shards share the partition at their border.

    `digest` is part of the key, so that a folder built anew in the same process is read anew.
    """
    first_user, last_user = _partition_users(root, digest)[partition : partition + 2].tolist()
    with ArrayReader(root / HISTORIES / "offsets") as reader:
        offsets = reader.read_rows(first_user, last_user + 1)
    base, end = int(offsets[0]), int(offsets[-1])
    columns: dict[str, Any] = {}
    for name in EVENT_FIELDS:
        with ArrayReader(root / HISTORIES / name) as reader:
            columns[name] = reader.read_rows(base, end)
    is_validation = _validation_users(root, digest)[first_user:last_user]
    return {"first_user": first_user, "offsets": offsets, "base": base, "is_validation": is_validation, **columns}


@lru_cache(maxsize=1)
def _partition_users(root: Path, digest: str) -> NDArray[np.int64]:
    with ArrayReader(root / HISTORIES / "partition_offsets") as reader:
        return reader.read_rows(0, reader.shape[0])


@lru_cache(maxsize=1)
def _validation_users(root: Path, digest: str) -> NDArray[np.bool_]:
    return read_validation_users(root)
