"""Finds tasks that an earlier process committed. A task is done again unless its files are unchanged to the bit.

A receipt has no checksum, and an unfinished build has no manifest to compare it with. So every field of a receipt is
compared with something else: the task, the files, and the facts that are stored in one of the files.
"""

from pathlib import Path

from streamfeat.builder.history_task import EVENT_SHARD, history_specs
from streamfeat.builder.tasks import FilterTask, HistoryTask, PartitionTask, SplitTask, Task, rejected_file, spill_file
from streamfeat.errors import DamagedError
from streamfeat.packings.window_task import WindowTask
from streamfeat.packings.windows import specs_of
from streamfeat.store.array_files import read_facts
from streamfeat.store.layout import HISTORIES
from streamfeat.store.reader import ArrayReader
from streamfeat.store.receipts import (
    FileRecord,
    FilterReceipt,
    HistoryReceipt,
    PartitionReceipt,
    Receipt,
    SplitReceipt,
    WindowReceipt,
)
from streamfeat.store.verify import SHARD_FILE
from streamfeat.store.writer import is_committed, read_receipt


def find_committed(root: Path, task: Task) -> Receipt | None:
    """The receipt of `task`; None if the task must be done.

    Every file is hashed. Otherwise a flipped bit would give another dataset that looks sound.
    """
    receipt = read_receipt(root, task.name)
    if receipt is None or receipt.digest != task.digest or not is_committed(root, receipt, full=True):
        return None
    if not _has_its_facts(root, task, receipt):
        return None
    if (receipt.rows, [file.path for file in receipt.files]) != _expected(task, receipt):
        return None
    return receipt if all(_has_its_checksum(root, file) for file in receipt.files) else None


def _has_its_facts(root: Path, task: Task, receipt: Receipt) -> bool:
    """Whether the receipt's facts equal those stored in one of its files, whose checksums are right."""
    if isinstance(task, WindowTask):
        return True
    listed = any(file.path == task.facts_file for file in receipt.files)
    return listed and read_facts(root, task.facts_file) == receipt.model_dump(mode="json").get("facts")


def _expected(task: Task, receipt: Receipt) -> tuple[int, list[str]] | None:
    """The rows and files that the receipt must list; None if the receipt does not belong to this task."""
    match task:
        case SplitTask() if isinstance(receipt, SplitReceipt):
            number, facts = task.split.number, receipt.facts
            spilled = [f"{spill_file(number)}.{block}" for block in range(facts.num_blocks)]
            rejected = [rejected_file(number)] if any(name.startswith("rejected_") for name in facts.counts) else []
            return task.split.num_rows, [*spilled, task.facts_file, *rejected]
        case PartitionTask() if isinstance(receipt, PartitionReceipt):
            return receipt.facts.events, [task.facts_file]
        case FilterTask() if isinstance(receipt, FilterReceipt):
            return receipt.facts.events, [task.facts_file]
        case HistoryTask() if isinstance(receipt, HistoryReceipt):
            specs = history_specs(task.data_schema, task.num_events, task.config.compression)
            shards = [f"{HISTORIES}/{spec.shard_file(task.shard)}" for spec in specs]
            return min(EVENT_SHARD, task.num_events - task.shard * EVENT_SHARD), [*shards, task.facts_file]
        case WindowTask() if isinstance(receipt, WindowReceipt):
            if (receipt.split, receipt.packing, receipt.shard) == (task.split, task.packing, task.shard):
                return task.shard_rows, [f"{task.group}/{spec.shard_file(task.shard)}" for spec in specs_of(task)]
    return None


def _has_its_checksum(root: Path, file: FileRecord) -> bool:
    """Whether the `crc32c` in a shard's record is right. Readers of the shard compare it."""
    match = SHARD_FILE.fullmatch(file.path)
    if match is None:
        return not file.crc32c
    try:
        with ArrayReader(root, match["array"], {int(match["shard"]): file.crc32c}) as reader:
            return file.crc32c != "" and reader.is_committed(int(match["shard"]))
    except DamagedError:
        return False
