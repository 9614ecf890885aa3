"""The task that writes one shard of a packing: the same in a build, in live training and in a repair."""

from typing import Literal

from streamfeat.config import BuildConfig
from streamfeat.records import Frozen
from streamfeat.schema import Schema
from streamfeat.store.layout import WINDOWS

# The coordinator writes this file for the tasks: users, starts, events of validation's segments, by place.
SEGMENTS_FILE = "tmp/segments.arrays"


class WindowTask(Frozen):
    """Writes one shard of every array of a packing from `histories.zarr`."""

    split: Literal["training", "validation"]
    packing: int
    shard: int
    num_windows: int  # of the packing
    chunk_windows: int
    shard_windows: int
    partitions: tuple[int, ...]  # partitions with tokens in the shard, in the packing's order
    partition_starts: tuple[int, ...]  # the stream place where each begins; empty if there are segments
    segments: tuple[int, int] = (0, 0)  # validation of `last:2`, `time:…`: the shard's rows of SEGMENTS_FILE
    data_schema: Schema
    config: BuildConfig
    digest: str

    @property
    def name(self) -> str:
        return window_task_name(self.split, self.packing, self.shard)

    @property
    def group(self) -> str:
        """The packing's Zarr group below the dataset."""
        return f"{WINDOWS}/{self.split}/{self.packing}"

    @property
    def shard_rows(self) -> int:
        """Windows of this shard."""
        return min(self.shard_windows, self.num_windows - self.shard * self.shard_windows)


def window_task_name(split: str, packing: int, shard: int) -> str:
    """The name of a window task, and so of its receipt."""
    return f"window-{split}-{packing:05d}-{shard:05d}"
