"""What the ranks say of themselves: one small file each, replaced atomically, whose position only ever grows.

So a stale, repeated or lost file changes nothing: readers keep the largest position that they have seen.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from streamfeat.errors import DamagedError, storage_errors
from streamfeat.live.folder import LiveRun, rank_file
from streamfeat.records import Frozen, read_back
from streamfeat.store.files import read_below, temporary_name

_MOST_BYTES = 4096  # of a rank's file


class RankRecord(Frozen):
    """`rank-R.json`."""

    format: Literal[1] = 1
    run_id: str  # a file of another run counts for nothing
    position: int = Field(ge=0)  # global batches that the rank is past
    freed: int = Field(default=0, ge=0)  # rank 0 alone: every shard that is past at this position is deleted


def publish(folder: Path, rank: int, record: RankRecord) -> None:
    """Replace the rank's file. Not durable: a run never outlives its machine. StorageError where the system refuses."""
    file = folder / rank_file(rank)
    temporary = folder / temporary_name(file.name)
    with storage_errors(file):
        temporary.write_text(record.model_dump_json(), "utf-8")
        temporary.replace(file)


class Positions:
    """The ranks' positions as last read. A rank without a file stands at the run's start."""

    def __init__(self, folder: Path, run: LiveRun) -> None:
        self._folder, self._run = folder, run
        self._positions = [run.start] * run.world_size
        self.freed = run.start  # every shard that is past at this position is deleted

    @property
    def least(self) -> int:
        """Global batches that every rank is past."""
        return min(self._positions)

    def refresh(self) -> None:
        """Read every rank's file."""
        for rank in range(self._run.world_size):
            record = self._record(rank)
            if record is not None:
                self._positions[rank] = max(self._positions[rank], record.position)
                if rank == 0:
                    self.freed = max(self.freed, record.freed)

    def _record(self, rank: int) -> RankRecord | None:
        try:
            data = read_below(self._folder, rank_file(rank), _MOST_BYTES)
        except FileNotFoundError:
            return None
        try:
            record = read_back(RankRecord, data, self._folder / rank_file(rank), "the rank writes it again")
        except DamagedError:
            return None
        return record if record.run_id == self._run.run_id else None
