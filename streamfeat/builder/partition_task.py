"""Partition tasks: make histories of one partition's rows from all spill files, and filter them."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamfeat.builder.numbering import IntCoder
from streamfeat.builder.tasks import (
    KEPT_ITEMS_FILE,
    FilterTask,
    PartitionTask,
    local_map_file,
    spill_file,
    split_task_name,
)
from streamfeat.errors import DataError
from streamfeat.events.event_order import Times, TooLongHistoryError, joined_fractions, order_events
from streamfeat.kernels.hash_table import collect_levels
from streamfeat.kernels.sort import count_ties_and_repeats
from streamfeat.schema import PLANNED
from streamfeat.store.array_files import map_arrays, text_arrays, texts_of, write_arrays
from streamfeat.store.receipts import (
    FileRecord,
    FilterFacts,
    FilterReceipt,
    PartitionFacts,
    PartitionReceipt,
    SortedFacts,
    SplitReceipt,
)
from streamfeat.store.writer import commit_receipt, read_receipt, receipt_file

MAX_LEVELS = 255  # with more distinct ratings or completions, a column cannot be stored in one byte per value
_COLUMNS = ("user", "time", "item", "rating", "status", "completion")

Columns = dict[str, NDArray[Any]]


def run_partition(root: Path, task: PartitionTask) -> PartitionReceipt:
    """Writes and commits a partition's histories: users in order of raw id, events by (time at the resolution of the
    file, input order), and only the last one of duplicates."""
    columns, fraction, raw_ids = _gather(root, task)
    ranks, raw_ids = _rank_users(columns.pop("user"), raw_ids)
    try:
        order, offsets = order_events(ranks, Times(columns["time"], fraction), columns["item"], len(raw_ids))
    except TooLongHistoryError as error:
        raise DataError(
            f"user {raw_ids[error.user]}: has too many events over too long a time to be sorted; leave that user out"
        ) from None
    columns = {name: values[order] for name, values in columns.items()}
    facts = PartitionFacts(**_facts_of(columns, offsets), duplicates=len(ranks) - len(order))
    file = _write(root, task, columns, offsets, raw_ids, facts)
    receipt = PartitionReceipt(task=task.name, digest=task.digest, rows=facts.events, files=(file,), facts=facts)
    commit_receipt(root, receipt)
    return receipt


def run_filter(root: Path, task: FilterTask) -> FilterReceipt:
    """Writes and commits a partition again, without rare items and then without users who have too few events."""
    arrays = map_arrays(root, task.source)
    kept_items = map_arrays(root, KEPT_ITEMS_FILE)["keep"]
    by_item = kept_items[arrays["item"]] != 0
    sums = np.concatenate([[0], np.cumsum(by_item)])
    per_user = np.diff(sums[arrays["offsets"]])
    kept_users = per_user > 0
    if task.min_user_events > 1:
        counted = by_item if task.before is None else by_item & (arrays["time"] < task.before)
        kept_users &= np.diff(np.append(0, np.cumsum(counted))[arrays["offsets"]]) >= task.min_user_events
    by_user = np.repeat(kept_users, np.diff(arrays["offsets"]))
    columns = {name: arrays[name][by_item & by_user] for name in _COLUMNS if name != "user"}
    offsets = np.concatenate([[0], np.cumsum(per_user[kept_users])]).astype(np.int64)
    raw_ids = texts_of(arrays, "raw_id").filter(pa.array(kept_users))
    facts = FilterFacts(
        **_facts_of(columns, offsets),
        filtered_by_item=int((~by_item).sum()),
        filtered_by_user=int((by_item & ~by_user).sum()),
        users_filtered=int((~kept_users).sum()),
    )
    file = _write(root, task, columns, offsets, raw_ids, facts)
    receipt = FilterReceipt(task=task.name, digest=task.digest, rows=facts.events, files=(file,), facts=facts)
    commit_receipt(root, receipt)
    return receipt


def _gather(root: Path, task: PartitionTask) -> tuple[Columns, NDArray[np.int32] | None, pa.StringArray]:
    """This partition's rows in input order, with provisional item numbers and user numbers; the fractions of their
    times, if there are any; and the users' raw ids."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in (*_COLUMNS, "user_is_text")}
    fractions: list[NDArray[np.int32] | None] = []
    texts: list[pa.StringArray] = []
    num_texts = 0
    p = task.partition
    for split in range(task.num_splits):
        name = split_task_name(split)
        receipt = read_receipt(root, name)
        if not isinstance(receipt, SplitReceipt):  # all splits were committed, so another program removed it
            raise FileNotFoundError(errno.ENOENT, "the receipt is gone", str(root / receipt_file(name)))
        item_map = map_arrays(root, local_map_file(split))["item"]
        for block in range(receipt.facts.num_blocks):
            arrays = map_arrays(root, f"{spill_file(split)}.{block}")
            rows = slice(*arrays["starts"][p : p + 2].tolist())
            is_text = arrays["user_is_text"][rows] if "user_is_text" in arrays else None
            user = np.array(arrays["user"][rows])
            if is_text is not None:
                user[is_text == 1] += num_texts
                first, last = arrays["text_starts"][p : p + 2].tolist()
                texts.append(texts_of(arrays, "text", first, last))
                num_texts += last - first
            parts["user"].append(user)
            parts["user_is_text"].append(np.zeros(len(user), np.uint8) if is_text is None else is_text)
            parts["item"].append(item_map[arrays["item"][rows]])
            for name in ("time", "rating", "status", "completion"):
                parts[name].append(arrays[name][rows])
            fractions.append(arrays["fraction"][rows] if "fraction" in arrays else None)
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    is_text = columns.pop("user_is_text") == 1
    all_texts = pa.concat_arrays(texts) if texts else pa.array([], pa.string())
    columns["user"], raw_ids = _number_users(columns["user"], is_text, all_texts)
    return columns, joined_fractions(fractions, [len(part) for part in parts["user"]]), raw_ids


def _number_users(
    users: NDArray[np.int64], is_text: NDArray[np.bool_], texts: pa.StringArray
) -> tuple[NDArray[np.int32], pa.StringArray]:
    """Dense numbers of the users, and the raw id of each. Users are compared by their texts, not by hashes."""
    encoded = texts.dictionary_encode()
    keys = users.copy()
    if len(texts):
        keys[is_text] = encoded.indices.to_numpy(zero_copy_only=False)[users[is_text]]
    coder = IntCoder()
    numbers = coder.code(keys, is_text.astype(np.int32))
    raw_ids = pa.array(coder.keys).cast(pa.string())
    if len(texts):
        from_text = encoded.dictionary.take(pa.array(np.where(coder.tags == 1, coder.keys, 0)))
        raw_ids = pc.if_else(pa.array(coder.tags == 1), from_text, raw_ids)
    return numbers, raw_ids


def _rank_users(numbers: NDArray[np.int32], raw_ids: pa.StringArray) -> tuple[NDArray[np.int32], pa.StringArray]:
    """Replaces numbers by the rank of the raw id (by UTF-8 bytes); also returns the raw ids in that order."""
    order = pc.sort_indices(raw_ids).to_numpy()
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks[numbers], raw_ids.take(pa.array(order))


def _facts_of(columns: Columns, offsets: NDArray[np.int64]) -> dict[str, Any]:
    """The fields of `SortedFacts`."""
    num_items = int(columns["item"].max(initial=-1)) + 1
    tally = np.zeros(3, np.int64)
    last_user = np.full(num_items, -1, np.int32)
    count_ties_and_repeats(columns["item"], columns["time"], columns["status"], offsets, PLANNED, last_user, tally)
    tied, targets, repeats = tally.tolist()
    times, ratings = columns["time"], columns["rating"]
    return {
        "users": len(offsets) - 1,
        "events": len(times),
        "tied": tied,
        "targets": targets,
        "repeats": repeats,
        "time_range": (int(times.min()), int(times.max())) if len(times) else (),
        "rating_levels": _levels(ratings),
        "rating_max": float(np.nanmax(ratings)) if (~np.isnan(ratings)).any() else 0.0,
        "completion_levels": _levels(columns["completion"]),
    }


def _write(
    root: Path,
    task: PartitionTask | FilterTask,
    columns: Columns,
    offsets: NDArray[np.int64],
    raw_ids: pa.StringArray,
    facts: SortedFacts,
) -> FileRecord:
    counts = np.bincount(columns["item"])
    items = np.flatnonzero(counts)
    return write_arrays(
        root,
        task.facts_file,
        {
            "offsets": offsets,
            **columns,
            **text_arrays("raw_id", raw_ids),
            "counted_items": items,
            "item_events": counts[items],
        },
        facts,
    )


def _levels(values: NDArray[np.float32]) -> tuple[float, ...] | None:
    """The distinct values; None if there are more than MAX_LEVELS."""
    levels = np.empty(MAX_LEVELS, np.float32)
    num = collect_levels(np.ascontiguousarray(values), levels)
    return None if num < 0 else tuple(levels[:num].tolist())
