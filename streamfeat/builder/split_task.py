"""Split task: reads and cleans a range of rows, numbers items, and distributes the events by user in a spill file."""

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamfeat.builder.numbering import ItemCoder
from streamfeat.builder.tasks import SplitTask, rejected_file, spill_file
from streamfeat.events.batches import EventBatch, Rejected
from streamfeat.events.event_order import joined_fractions
from streamfeat.events.event_reader import DEFAULT_MEDIUM, read_batches
from streamfeat.events.odd_times import YEAR_1990, newest_time
from streamfeat.kernels.draws import PARTITION_OF_USER, draw_state
from streamfeat.kernels.scatter import counting_sort, partition_of_ints, partition_of_texts, scatter_rows
from streamfeat.schema import PLANNED
from streamfeat.store.array_files import text_arrays, write_arrays
from streamfeat.store.receipts import FileRecord, SplitFacts, SplitReceipt
from streamfeat.store.writer import commit_receipt, write_whole

BLOCK_ROWS = 2_500_000  # rows that are distributed at a time; limits a worker's memory


@dataclass
class _Block:
    """Rows that are distributed together."""

    columns: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    fractions: list[NDArray[np.int32] | None] = field(default_factory=list)
    user_texts: list[pa.StringArray] = field(default_factory=list)
    num_texts: int = 0
    num_rows: int = 0

    def add(self, batch: EventBatch, items: NDArray[np.int32], keep: NDArray[np.bool_]) -> None:
        everything = bool(keep.all())
        users = batch.user.number if everything else batch.user.number[keep]
        is_text = np.zeros(len(users), np.uint8)
        if batch.user.text is not None:
            encoded = batch.user.text.dictionary_encode()
            known = ~np.asarray(batch.user.text.is_null())[keep]
            codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)[keep]
            users = np.where(known, codes + self.num_texts, users)
            is_text[known] = 1
            self.user_texts.append(encoded.dictionary)
            self.num_texts += len(encoded.dictionary)
        rows: dict[str, NDArray[Any]] = {
            "user": users.astype(np.int64),
            "user_is_text": is_text,
            "time": batch.time,
            "item": items,
            "rating": batch.rating,
            "status": batch.status,
            "completion": batch.completion,
        }
        for name, values in rows.items():
            selected = values if everything or name.startswith("user") else values[keep]
            self.columns.setdefault(name, []).append(selected)
        self.fractions.append(None if batch.fraction is None else batch.fraction[keep])
        self.num_rows += len(users)


def run_split(root: Path, task: SplitTask) -> SplitReceipt:
    """Writes and commits the spill file, the local item table and the rejected rows of one split."""
    coder = ItemCoder()
    counts: Counter[str] = Counter()
    rejected: list[Rejected] = []
    blocks: list[FileRecord] = []
    block = _Block()
    newest = newest_time(task.split.source.path)
    medium = task.config.media[0] if len(task.config.media) == 1 else DEFAULT_MEDIUM
    for batch in read_batches(task.split, root / "tmp", medium):
        keep = _selected(batch, task, newest, counts)
        counts["rows"] += batch.num_rows
        counts["undated"] += batch.undated
        rejected.extend(batch.rejected)
        block.add(batch, coder.code(batch, keep), keep)
        if block.num_rows >= BLOCK_ROWS:
            blocks.append(_write_block(root, task, len(blocks), block))
            block = _Block()
    if block.num_rows:
        blocks.append(_write_block(root, task, len(blocks), block))
    counts.update(f"rejected_{reject.reason}" for reject in rejected)
    facts = SplitFacts(
        counts=counts, media=tuple(coder.media), media_seen=tuple(sorted(coder.media_seen)), num_blocks=len(blocks)
    )
    files = [*blocks, write_arrays(root, task.facts_file, coder.tables(), facts)]
    if rejected:
        files.append(_write_rejected(root, task, rejected))
    receipt = SplitReceipt(task=task.name, digest=task.digest, rows=counts["rows"], files=tuple(files), facts=facts)
    commit_receipt(root, receipt)
    return receipt


def _selected(batch: EventBatch, task: SplitTask, newest: int, counts: Counter[str]) -> NDArray[np.bool_]:
    """The rows that the options for media and planned events keep. Counts the others, and kept rows with odd times.

    A time is odd before 1990 or after `newest`: probably its unit is another, or a clock was wrong.
    """
    keep = np.ones(len(batch.time), np.bool_)
    if task.config.media:
        wanted = np.array([medium in task.config.media for medium in batch.media], np.bool_)
        keep = wanted[batch.medium] if len(wanted) else keep
        counts["left_out_medium"] += int((~keep).sum())
    if not task.config.keep_planned:
        planned = keep & (batch.status == PLANNED)
        counts["left_out_planned"] += int(planned.sum())
        keep = keep & ~planned
    counts["odd_before_1990"] += int((keep & (batch.time < YEAR_1990)).sum())
    counts["odd_after_the_file"] += int((keep & (batch.time > newest)).sum())
    return keep


def _write_block(root: Path, task: SplitTask, number: int, block: _Block) -> FileRecord:
    """Writes a block's rows grouped by partition, in input order within a partition."""
    state = draw_state(task.config.seed, PARTITION_OF_USER)
    num_partitions = task.num_partitions
    users = np.concatenate(block.columns["user"])
    partitions = np.empty(len(users), np.int32)
    partition_of_ints(users, state, num_partitions, partitions)
    texts: dict[str, NDArray[Any]] = {}
    if block.num_texts:
        all_texts = pa.concat_arrays(block.user_texts).cast(pa.string())
        text_partitions = _partition_texts(all_texts, state, num_partitions)
        is_text = np.concatenate(block.columns["user_is_text"]) == 1
        partitions[is_text] = text_partitions[users[is_text]]
        starts, places = _sorted_places(text_partitions, num_partitions)
        # The text number of a row is relative to the first text of its partition.
        users[is_text] = (places - starts[text_partitions])[users[is_text]]
        order = np.empty_like(places)
        order[places] = np.arange(len(places))
        texts = {"text_starts": starts, **text_arrays("text", all_texts.take(pa.array(order)))}
    else:
        del block.columns["user_is_text"]
    block.columns["user"] = [users]
    fractions = joined_fractions(block.fractions, [len(part) for part in block.columns["time"]])
    if fractions is not None:
        block.columns["fraction"] = [fractions]
    starts, places = _sorted_places(partitions, num_partitions)
    arrays: dict[str, NDArray[Any]] = {"starts": starts}
    for name, parts in block.columns.items():
        arrays[name] = np.empty(block.num_rows, parts[0].dtype)
        first = 0
        for part in parts:  # directly from the batches: joining them first would take as long as this loop
            scatter_rows(part, places[first : first + len(part)], arrays[name])
            first += len(part)
    return write_arrays(root, f"{spill_file(task.split.number)}.{number}", {**arrays, **texts})


def _partition_texts(texts: pa.StringArray, state: np.uint64, num_partitions: int) -> NDArray[np.int32]:
    _, offsets, data = texts.buffers()
    out = np.empty(len(texts), np.int32)
    edges = np.frombuffer(offsets, np.int32)[: len(texts) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    partition_of_texts(np.array(edges), np.array(content), state, num_partitions, out)
    return out


def _sorted_places(groups: NDArray[np.int32], num_groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts = np.zeros(num_groups + 1, np.int64)
    places = np.empty(len(groups), np.int64)
    counting_sort(groups, starts, places)
    return starts, places


def _write_rejected(root: Path, task: SplitTask, rejected: list[Rejected]) -> FileRecord:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for reject in sorted(rejected, key=lambda r: r.row):
        writer.writerow([task.split.source.path, reject.row, reject.reason, reject.value])
    return write_whole(root, rejected_file(task.split.number), text.getvalue().encode("utf-8", "replace"))
