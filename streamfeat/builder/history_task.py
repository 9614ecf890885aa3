"""History task: writes one shard of the event columns, and its part of the statistics about training events."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.builder.tasks import HELD_OUT_FILE, ITEM_MAP_FILE, HistoryTask
from streamfeat.schema import EVENT_FIELDS, PLANNED, Schema
from streamfeat.store.array_files import map_arrays, write_arrays
from streamfeat.store.layout import HISTORIES, ArraySpec
from streamfeat.store.receipts import HistoryFacts, HistoryReceipt
from streamfeat.store.writer import commit_receipt, write_shard

EVENT_CHUNK = 1 << 16  # events in a chunk: a partition of 400,000 events is read in about seven chunks
EVENT_SHARD = 1 << 20  # events in a shard, which is one history task


def history_specs(schema: Schema, num_events: int, compression: Any) -> list[ArraySpec]:
    """The event columns of `histories.zarr`."""
    specs = []
    for name in EVENT_FIELDS:
        field = schema.field(name)
        attributes = {key: value for key, value in field.attributes.items() if key not in ("cls_value", "pad_value")}
        specs.append(
            ArraySpec(
                name=name,
                num_rows=num_events,
                row_shape=(),
                dtype=field.dtype,
                chunk_rows=EVENT_CHUNK,
                shard_rows=EVENT_SHARD,
                fill_value=field.pad,
                dimension_names=("event",),
                compression=compression,
                attributes=attributes,
            )
        )
    return specs


def run_history(root: Path, task: HistoryTask) -> HistoryReceipt:
    """Writes and commits shard `task.shard` of every event column."""
    low = task.shard * EVENT_SHARD
    high = min(low + EVENT_SHARD, task.num_events)
    columns, is_training = _read_range(root, task, low, high)
    schema = task.data_schema
    time = columns["time"] - schema.time_origin
    stored = {
        "item": columns["item"],
        "time": time,
        "rating": schema.rating.encode(columns["rating"]),
        "status": columns["status"],
        "completion": schema.completion.encode(columns["completion"]),
    }
    files = [
        write_shard(root, HISTORIES, spec, task.shard, stored[spec.name].astype(spec.dtype, copy=False))
        for spec in history_specs(schema, task.num_events, task.config.compression)
    ]
    trained = is_training & (columns["status"] != PLANNED)
    counts = np.bincount(columns["item"][trained])
    items = np.flatnonzero(counts)
    trained_times = time[is_training]
    facts = HistoryFacts(
        training_times=(int(trained_times.min()), int(trained_times.max())) if len(trained_times) else (),
        ratings=_rating_sums(schema, columns, trained),
    )
    files.append(write_arrays(root, task.facts_file, {"item": items, "targets": counts[items]}, facts))
    receipt = HistoryReceipt(task=task.name, digest=task.digest, rows=high - low, files=tuple(files), facts=facts)
    commit_receipt(root, receipt)
    return receipt


def _read_range(
    root: Path, task: HistoryTask, low: int, high: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """The events low .. high - 1 of all partitions one after the other, with final item ids; and which are training
    events."""
    item_ids = map_arrays(root, ITEM_MAP_FILE)["item"]
    training_events = map_arrays(root, HELD_OUT_FILE)["training_events"]
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in EVENT_FIELDS}
    training: list[NDArray[np.bool_]] = []
    for file, first_event, first_user in zip(
        task.partition_files, task.partition_first_events, task.partition_first_users, strict=True
    ):
        arrays = map_arrays(root, file)
        rows = slice(max(low - first_event, 0), high - first_event)
        for name in EVENT_FIELDS:
            parts[name].append(arrays[name][rows])
        offsets = arrays["offsets"]
        ends = offsets[:-1] + training_events[first_user : first_user + len(offsets) - 1]
        training.append((np.arange(offsets[-1]) < np.repeat(ends, np.diff(offsets)))[rows])
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    columns["item"] = item_ids[columns["item"]]
    return columns, np.concatenate(training)


def _rating_sums(
    schema: Schema, columns: dict[str, NDArray[Any]], trained: NDArray[np.bool_]
) -> tuple[tuple[float, ...], ...]:
    """Number, sum and sum of squares of the ratings of training events that are not planned, for each medium."""
    rated = trained & ~np.isnan(columns["rating"])
    ratings = columns["rating"][rated].astype(np.float64)
    media = np.searchsorted(schema.medium_offsets, columns["item"][rated], side="right") - 1
    num_media = len(schema.media)
    return tuple(
        tuple(np.bincount(media, weights=weights, minlength=num_media).tolist())
        for weights in (np.ones_like(ratings), ratings, ratings**2)
    )
