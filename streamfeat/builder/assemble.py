"""Makes the parts of a dataset that need all partitions: schema, offsets, tables, manifest."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamfeat.builder.history_task import EVENT_CHUNK, EVENT_SHARD
from streamfeat.builder.hold_out import Division
from streamfeat.builder.plan import Plan, digest_of
from streamfeat.builder.tasks import HistoryTask, targets_file
from streamfeat.builder.vocabulary import Vocabulary, merged_levels
from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.odd_times import check_odd_times
from streamfeat.events.reading_again import reading_of
from streamfeat.reading import distinct
from streamfeat.schema import FORMAT_VERSION, FloatCode, Schema
from streamfeat.store.array_files import map_arrays, texts_of
from streamfeat.store.histories import HeldOut
from streamfeat.store.layout import HISTORIES, ArraySpec, create_arrays
from streamfeat.store.manifest import Manifest, MediumScales
from streamfeat.store.receipts import (
    FileRecord,
    HistoryReceipt,
    MetadataReceipt,
    OffsetsReceipt,
    Receipt,
    ReceiptT,
    RejectedReceipt,
    SortedReceipt,
    SplitReceipt,
    Store,
    TablesReceipt,
)
from streamfeat.store.tables import write_items, write_users
from streamfeat.store.writer import commit_receipt, metadata_records, write_shard

TIE_RULE = "equal timestamps of a user keep the order of the input"


def check_media(config: BuildConfig, splits: Sequence[SplitReceipt]) -> None:
    """Raises ConfigError if `media` has a name that no event has."""
    seen = sorted({medium for receipt in splits for medium in receipt.facts.media_seen})
    unknown = [name for name in config.media if name not in seen]
    if unknown:
        found = ", ".join(seen) or "none"
        raise ConfigError(
            f"--media {unknown[0]!r}: no event has this medium; the events have {found}; correct it and build with "
            "--overwrite"
        )


def check_left(splits: Sequence[SplitReceipt], counts: Counter[str]) -> None:
    """Raises DataError if the options leave no event."""
    if not any(receipt.facts.num_blocks for receipt in splits):
        reasons = ", ".join(
            f"{number} {name.replace('_', ' ')}"
            for name, number in counts.items()
            if number and name.startswith(("rejected", "left_out"))
        )
        raise DataError(f"0 of {counts['rows']} events are left ({reasons}); check --media, --no-planned and the input")


def check_times(config: BuildConfig, counts: Counter[str]) -> None:
    """Raises ConfigError as `check_odd_times` does."""
    left = counts["rows"] - sum(
        number for name, number in counts.items() if name.startswith(("rejected_", "left_out_"))
    )
    check_odd_times(config, counts["odd_before_1990"], counts["odd_after_the_file"], left)


def schema_of(config: BuildConfig, vocabulary: Vocabulary, partitions: Sequence[SortedReceipt]) -> Schema:
    """The schema of the dataset of these partitions."""
    facts = [receipt.facts for receipt in partitions]
    times = [time for each in facts for time in each.time_range]
    origin, latest = min(times), max(times)
    return Schema(
        media=vocabulary.media,
        medium_offsets=vocabulary.medium_offsets,
        num_users=sum(each.users for each in facts),
        window_len=config.window_len,
        time_dtype="uint32" if latest - origin < 2**32 else "int64",
        time_origin=origin,
        rating=FloatCode.of_levels(merged_levels(each.rating_levels for each in facts)),
        completion=FloatCode.of_levels(merged_levels(each.completion_levels for each in facts)),
        rating_max=max(each.rating_max for each in facts),
    )


def first_events(partitions: Sequence[SortedReceipt]) -> list[int]:
    """The place of each partition's first event in `histories.zarr`, then the number of all events."""
    return [0, *accumulate(receipt.facts.events for receipt in partitions)]


def first_users(partitions: Sequence[SortedReceipt]) -> list[int]:
    """The first user of each partition, then the number of all users."""
    return [0, *accumulate(receipt.facts.users for receipt in partitions)]


def write_offsets(root: Path, plan: Plan, schema: Schema, partitions: Sequence[SortedReceipt]) -> OffsetsReceipt:
    """Writes and commits `offsets` and `partition_offsets` of `histories.zarr`."""
    events, users = first_events(partitions), first_users(partitions)
    offsets = np.empty(users[-1] + 1, np.int64)
    offsets[-1] = events[-1]
    for number, receipt in enumerate(partitions):
        local = map_arrays(root, receipt.files[0].path)["offsets"][:-1]
        offsets[users[number] : users[number + 1]] = local + events[number]
    arrays = {
        "offsets": (offsets, "user_edge", "history i is the events offsets[i] to offsets[i+1]-1, oldest first"),
        "partition_offsets": (
            np.array(users, np.int64),
            "partition_edge",
            "partition p is the users partition_offsets[p] to partition_offsets[p+1]-1",
        ),
    }
    files: list[FileRecord] = []
    for name, (values, dimension, long_name) in arrays.items():
        spec = ArraySpec(
            name=name,
            num_rows=len(values),
            row_shape=(),
            dtype=values.dtype,
            chunk_rows=EVENT_CHUNK,
            shard_rows=EVENT_SHARD,
            fill_value=0,
            dimension_names=(dimension,),
            compression=plan.config.compression,
            attributes={"long_name": long_name},
        )
        create_arrays(root / HISTORIES, [spec], schema.attributes())
        for shard in range(spec.num_shards):
            rows = values[shard * EVENT_SHARD : (shard + 1) * EVENT_SHARD]
            files.append(write_shard(root, HISTORIES, spec, shard, rows))
    return _committed(root, OffsetsReceipt(task="offsets", digest=plan.digest, rows=len(offsets), files=tuple(files)))


def history_tasks(plan: Plan, schema: Schema, partitions: Sequence[SortedReceipt]) -> list[HistoryTask]:
    """One task for each shard of the event columns, with the partitions that have events in it."""
    edges, users = first_events(partitions), first_users(partitions)
    tasks = []
    for shard in range(-(-edges[-1] // EVENT_SHARD)):
        low, high = shard * EVENT_SHARD, min((shard + 1) * EVENT_SHARD, edges[-1])
        touched = [p for p in range(len(partitions)) if edges[p] < high and edges[p + 1] > low]
        tasks.append(
            HistoryTask(
                shard=shard,
                num_events=edges[-1],
                partition_files=tuple(partitions[p].files[0].path for p in touched),
                partition_first_events=tuple(edges[p] for p in touched),
                partition_first_users=tuple(users[p] for p in touched),
                data_schema=schema,
                config=plan.config,
                digest=plan.digest,
            )
        )
    return tasks


def training_targets(root: Path, histories: Sequence[HistoryReceipt], num_items: int) -> NDArray[np.int64]:
    """(items,) int64: the number of training events with an item target, for each item."""
    targets = np.zeros(num_items, np.int64)
    for receipt in histories:
        arrays = map_arrays(root, targets_file(receipt.task))
        targets[arrays["item"]] += arrays["targets"]
    return targets


def write_tables(
    root: Path,
    plan: Plan,
    vocabulary: Vocabulary,
    partitions: Sequence[SortedReceipt],
    held_out: HeldOut,
    targets: NDArray[np.int64],
) -> TablesReceipt:
    """Writes and commits `items.parquet` and `users.parquet`."""
    titles = [title or None for title in vocabulary.titles.to_pylist()]
    items = write_items(
        root,
        {
            "id": np.arange(len(targets)),
            "medium": vocabulary.media_of_items(),
            "raw_id": vocabulary.raw_ids,
            "events": vocabulary.events,
            "title": pa.array(titles, pa.string()),
            "targets": targets,
        },
    )
    edges = first_users(partitions)

    def user_parts() -> Iterator[dict[str, Any]]:
        names = pa.array(["training", "validation"])
        for number, receipt in enumerate(partitions):
            arrays = map_arrays(root, receipt.files[0].path)
            users = np.arange(edges[number], edges[number + 1])
            training_events = held_out.training_events[users]
            yield {
                "id": users,
                "raw_id": texts_of(arrays, "raw_id"),
                "split": names.take(pa.array((training_events == 0).astype(np.int8))),
                "events": np.diff(arrays["offsets"]),
                "training_events": training_events,
                "validation_events": held_out.validation_events[users],
            }

    files = (items, write_users(root, user_parts()))
    return _committed(root, TablesReceipt(task="tables", digest=plan.digest, rows=edges[-1], files=files))


def commit_metadata(root: Path, store: Store, digest: str, name: str) -> MetadataReceipt:
    """Commits the Zarr metadata of a store. Only if the manifest lists them, an edited shape is noticed."""
    files = metadata_records(root, store)
    return _committed(
        root, MetadataReceipt(task=f"metadata-{name}", digest=digest, rows=len(files), files=files, store=store)
    )


def commit_rejected(root: Path, digest: str, rejected: FileRecord) -> RejectedReceipt:
    """Commits `rejected.csv`."""
    return _committed(root, RejectedReceipt(task="rejected", digest=digest, rows=0, files=(rejected,)))


def _committed(root: Path, receipt: ReceiptT) -> ReceiptT:
    commit_receipt(root, receipt)
    return receipt


def draft_manifest(
    plan: Plan,
    schema: Schema,
    vocabulary: Vocabulary,
    partitions: Sequence[SortedReceipt],
    histories: Sequence[HistoryReceipt],
    division: Division,
    targets: NDArray[np.int64],
    counts: Counter[str],
    receipts: list[Receipt],
) -> Manifest:
    """The manifest before windows are written. `receipts` are those of histories and tables."""
    checksums = sorted((file.path, file.sha256) for receipt in receipts for file in receipt.files)
    times = [time for receipt in histories for time in receipt.facts.training_times]
    facts = [receipt.facts for receipt in partitions]
    planned = sum(each.events - each.targets for each in facts)
    users_with_too_few_targets = 0
    if plan.config.split_rule.kind == "last":
        users_with_too_few_targets = int((division.held_out.validation_events == 0).sum())
    return Manifest(
        format_version=FORMAT_VERSION,
        schema=schema,
        config=plan.config,
        sources=plan.files,
        readings=distinct(reading_of(source) for source in plan.sources),
        plan=plan.digest,
        fingerprint=digest_of([schema.model_dump(mode="json"), plan.facts.config, checksums]),
        num_events=sum(each.events for each in facts),
        num_users=schema.num_users,
        num_items=schema.num_items,
        splits={},  # known when the windows are planned
        validation_targets="last" if plan.config.validates_one_event else "all",
        users_with_too_few_targets=users_with_too_few_targets,
        time_split=division.time_split,
        scales=_scales(schema, vocabulary, histories, targets),
        time_min=min(times),
        time_max=max(times),
        time_last=max(times) + schema.time_origin,
        repeat_share=division.repeat_share,
        tied_events=sum(each.tied for each in facts),
        tie_rule=TIE_RULE,
        cleaning=dict(sorted({**counts, "planned": planned}.items())),
        event_chunk=EVENT_CHUNK,
        event_shard=EVENT_SHARD,
        special_tokens={
            name: tokens._asdict()
            for name, tokens in (
                ("item", schema.item_tokens),
                ("user", schema.user_tokens),
                ("position", schema.position_tokens),
                ("status", schema.status_tokens),
                ("medium", schema.medium_tokens),
            )
        },
        receipts=tuple(receipts),
    )


def _scales(
    schema: Schema, vocabulary: Vocabulary, histories: Sequence[HistoryReceipt], targets: NDArray[np.int64]
) -> tuple[MediumScales, ...]:
    sums = np.sum([receipt.facts.ratings for receipt in histories], axis=0)
    scales = []
    for m, medium in enumerate(schema.media):
        mine = slice(schema.medium_offsets[m], schema.medium_offsets[m + 1])
        counts = targets[mine]
        shares = counts[counts > 0] / max(int(counts.sum()), 1)
        num, total, squares = (float(value) for value in sums[:, m])
        mean = total / num if num else 0.0
        scales.append(
            MediumScales(
                medium=medium,
                items=len(counts),
                events=int(vocabulary.events[mine].sum()),
                targets=int(counts.sum()),
                ratings=int(num),
                watch_entropy=float(-(shares * np.log(shares)).sum()) if len(shares) > 1 else 0.0,
                rating_mean=mean,
                rating_variance=max(squares / num - mean**2, 0.0) if num else 0.0,
            )
        )
    return tuple(scales)
