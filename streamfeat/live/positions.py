"""The ranks' positions: each rank has one small file, replaced atomically. Its position never decreases.

Readers keep the largest position that they have seen, so an old or a missing file does no harm.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from streamfeat.errors import DamagedError, storage_errors
from streamfeat.live.folder import LiveRun, rank_file
from streamfeat.records import Frozen, read_back
from streamfeat.store.files import read_below, temporary_name

_MOST_BYTES = 4096  # size limit of a rank's file


class RankRecord(Frozen):
    """The content of `rank-R.json`."""

    format: Literal[1] = 1
    run_id: str  # a file of another run is ignored
    position: int = Field(ge=0)  # the rank has read the global batches before this one
    freed: int = Field(default=0, ge=0)  # rank 0 only: all shards that no batch from here on reads are deleted


def publish(folder: Path, rank: int, record: RankRecord) -> None:
    """Replaces the rank's file. Not durable, because a run does not survive a crash of its machine. May raise
    StorageError."""
    file = folder / rank_file(rank)
    temporary = folder / temporary_name(file.name)
    with storage_errors(file):
        temporary.write_text(record.model_dump_json(), "utf-8")
        temporary.replace(file)


class Positions:
    """The ranks' positions when last read. A rank without a file has the position of the run's start."""

    def __init__(self, folder: Path, run: LiveRun) -> None:
        self._folder, self._run = folder, run
        self._positions = [run.start] * run.world_size
        self.freed = run.start  # all shards that no batch from here on reads are deleted

    @property
    def least(self) -> int:
        """The smallest position: every rank has read the global batches before this one."""
        return min(self._positions)

    def refresh(self) -> None:
        """Reads every rank's file."""
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
