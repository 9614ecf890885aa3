"""Frozen descriptions of the writes of a build. A task is idempotent and committed by its receipt.

`facts_file` is the temporary file of a task that holds the facts of its receipt, too: by its digest they are told from
altered ones.
"""

from streamfeat.config import BuildConfig
from streamfeat.events.splits import Split
from streamfeat.packings.window_task import WindowTask
from streamfeat.records import Frozen
from streamfeat.schema import Schema

# Files that the coordinator leaves for the tasks, below the dataset folder.
ITEMS_FILE = "tmp/items.arrays"  # provisional items: medium, raw_id, title
ITEM_MAP_FILE = "tmp/item-map.arrays"  # provisional item → final id, or -1
KEPT_ITEMS_FILE = "tmp/kept-items.arrays"  # provisional item → survives the item filter
HELD_OUT_FILE = "tmp/held-out.arrays"  # user → how many of its first events train


class SplitTask(Frozen):
    """Read a run of rows of an event file and scatter them by user into a spill file."""

    split: Split
    config: BuildConfig
    num_partitions: int
    digest: str

    @property
    def name(self) -> str:
        return split_task_name(self.split.number)

    @property
    def facts_file(self) -> str:
        return local_items_file(self.split.number)


class PartitionTask(Frozen):
    """Gather one partition's rows from all spill files, number its users, sort, drop duplicates."""

    partition: int
    num_splits: int
    digest: str

    @property
    def name(self) -> str:
        return f"partition-{self.partition:05d}"

    @property
    def facts_file(self) -> str:
        return f"tmp/{self.name}.arrays"


class FilterTask(Frozen):
    """Read a partition again and drop items, then users, with too few events."""

    partition: int
    min_user_events: int
    digest: str

    @property
    def name(self) -> str:
        return f"filtered-{self.partition:05d}"

    @property
    def source(self) -> str:
        return f"tmp/partition-{self.partition:05d}.arrays"

    @property
    def facts_file(self) -> str:
        return f"tmp/{self.name}.arrays"


class HistoryTask(Frozen):
    """Fill one shard of the event columns of `histories.zarr` from the partitions that it touches."""

    shard: int
    num_events: int
    partition_files: tuple[str, ...]  # of the touched partitions
    partition_first_events: tuple[int, ...]
    partition_first_users: tuple[int, ...]
    data_schema: Schema
    config: BuildConfig
    digest: str

    @property
    def name(self) -> str:
        return f"history-{self.shard:05d}"

    @property
    def facts_file(self) -> str:
        return targets_file(self.name)


Task = SplitTask | PartitionTask | FilterTask | HistoryTask | WindowTask


def split_task_name(split: int) -> str:
    return f"split-{split:05d}"


def spill_file(split: int) -> str:
    return f"tmp/split-{split:05d}.spill"


def local_items_file(split: int) -> str:
    return f"tmp/split-{split:05d}.items"


def rejected_file(split: int) -> str:
    return f"tmp/split-{split:05d}.rejected.csv"


def local_map_file(split: int) -> str:
    return f"tmp/split-{split:05d}.map"


def targets_file(history_task: str) -> str:
    """Training targets per item of a history task."""
    return f"tmp/{history_task}.targets"
