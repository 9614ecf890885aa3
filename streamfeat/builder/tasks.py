"""The tasks of a build: frozen descriptions of writes. A task may be repeated; its receipt commits it.

`facts_file` is a temporary file of a task. It also holds the facts of the task's receipt, so that altered facts in a
receipt are noticed.
"""

from streamfeat.config import BuildConfig
from streamfeat.events.splits import Split
from streamfeat.packings.window_task import WindowTask
from streamfeat.records import Frozen
from streamfeat.schema import Schema

# Files that the coordinator writes for the tasks, below the dataset folder.
ITEMS_FILE = "tmp/items.arrays"  # provisional items: medium, raw_id, title
ITEM_MAP_FILE = "tmp/item-map.arrays"  # provisional item → final id, or -1
KEPT_ITEMS_FILE = "tmp/kept-items.arrays"  # provisional item → whether the item filter keeps it
HELD_OUT_FILE = "tmp/held-out.arrays"  # user → number of first events for training


class SplitTask(Frozen):
    """Read a range of rows of an event file and distribute them by user in a spill file."""

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
    """Collect one partition's rows from all spill files, number its users, sort, drop duplicates."""

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
    before: int | None  # Unix seconds: only a user's earlier events count; None: all
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
    """Write one shard of the event columns of `histories.zarr` from the partitions that have events in it."""

    shard: int
    num_events: int
    partition_files: tuple[str, ...]  # of these partitions
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
    """The file with the training targets of each item in a history task's shard."""
    return f"tmp/{history_task}.targets"
