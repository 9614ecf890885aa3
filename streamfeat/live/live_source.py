"""The trainer's side of a live run: finds out when a shard can be read, and deletes it when every rank is past it."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType

from streamfeat.errors import ConfigError, StorageError
from streamfeat.live.folder import RUN_FILE, read_run
from streamfeat.live.positions import Positions, RankRecord, publish
from streamfeat.live.schedule import Need, Schedule
from streamfeat.live.shard_files import Commits, forget_claim, remove_packing, remove_shard
from streamfeat.store.layout import WINDOWS
from streamfeat.store.manifest import Manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.stream.order import steps_per_epoch

BEAT_S = 0.25  # rank 0 checks so often whether the others are past a shard
SIGN_OF_LIFE_S = 10.0  # a rank's file is written at least so often
_LOOK_AGAIN_S = 0.02  # a reader thread checks so often for a receipt


class LiveSource:
    """The chunks of a live run for one rank: a `ChunkSource`.

    Until `close`, a thread gives signs of life, even while the trainer validates or compiles.
    """

    live = True

    def __init__(self, root: Path, folder: Path, manifest: Manifest, rank: int) -> None:
        """Opens the run `folder`, created by `start_run`, on the dataset `root` with its `manifest`.

        Raises StorageError if the folder does not exist, ConfigError if the run has another dataset or no such rank.
        """
        try:
            self._run = run = read_run(folder)
        except FileNotFoundError:
            raise _gone(folder) from None
        if run.fingerprint != manifest.fingerprint or not 0 <= rank < run.world_size:
            raise ConfigError(
                f"{folder}: belongs to dataset {run.fingerprint} and {run.world_size} ranks (here rank {rank}, dataset "
                f"{manifest.fingerprint} in {root}); give every rank the same dataset and run"
            )
        self._folder, self._manifest, self._rank = folder, manifest, rank
        counts = manifest.splits["training"]
        self._chunks_per_shard = counts.shard_windows // counts.chunk_windows
        self._steps_per_epoch = steps_per_epoch(counts.windows, run.batch_windows)
        self._schedule = Schedule(
            counts, seed=run.seed, batch_windows=run.batch_windows, start=run.start, stop=run.stop
        )
        self._commits = Commits(folder, run.fingerprint, [field.name for field in manifest.data_schema.token_fields()])
        self._positions = Positions(folder, run)
        self._lock = threading.RLock()
        self._position = self._freed = run.start
        self._num_ready = 0  # all shards before this number are committed
        self._num_begun = 0  # all shards before this number were read by a batch
        self._in_use: list[Need] = []  # shards that a later batch reads, too
        self._past: list[Need] = []  # shards that this rank no longer reads; rank 0 deletes them when all ranks agree
        self._first_packing = run.start // max(self._steps_per_epoch, 1)  # the first packing that is not deleted
        self._published = 0.0  # time of the last `_publish`, on the monotonic clock
        self._unsaid = False  # whether a new position must still be published
        self._publish()
        self._sign_of_life_s = min(SIGN_OF_LIFE_S, run.timeout_s / 4)
        self._closed = False
        self._woken = threading.Event()
        # A thread publishes and deletes, so that the training thread does not wait for the disk.
        self._beats = threading.Thread(target=self._beat, name="live-beat", daemon=True)
        self._beats.start()

    # Methods for a stream.

    def reader(self, packing: int, field: str) -> ArrayReader:
        """Opens an array of a packing, one of whose chunks `has` must have found. Raises as `ArrayReader` does."""
        with self._lock:
            committed = self._commits.shard_checksums(packing, field)
        return ArrayReader(self._folder, f"{WINDOWS}/{packing}/{field}", committed)

    def has(self, packing: int, chunk: int) -> bool:
        """Whether the chunk's shard is committed. False if no batch of the run reads it."""
        with self._lock:
            need = self._schedule.of(packing, chunk // self._chunks_per_shard)
            return need is not None and self._commits.has(need)

    def wait_for(self, packing: int, chunk: int, stopped: threading.Event) -> None:
        """Waits until the chunk's shard is committed. Raises CancelledError when `stopped` is set.

        Raises ConfigError for a chunk that no batch of the run reads, StorageError if the folder is gone.
        """
        while not self.has(packing, chunk):
            self._check_served(packing, chunk)
            self._check_there()
            if stopped.wait(_LOOK_AGAIN_S):
                raise CancelledError

    def advance(self, position: int, forget: Callable[[int, int], None]) -> None:
        """Records that this rank got the batches before `position`. If a shard is past, the thread publishes it.

        Raises StorageError if the folder is gone.
        """
        with self._lock:
            if position <= self._position:
                return
            self._position = position
            while (need := self._schedule.at(self._num_begun)) is not None and need.first_position < position:
                self._in_use.append(need)
                self._num_begun += 1
            past = [need for need in self._in_use if need.last_position < position]
            if not past:
                return
            self._in_use = [need for need in self._in_use if need.last_position >= position]
            for need in past:
                forget(need.packing, need.shard)
                self._commits.forget_checksums(need)
            if self._rank == 0:
                self._past += past
            self._unsaid = True
        self._check_there()
        self._woken.set()

    # Methods for a trainer.

    def ready(self, position: int) -> bool:
        """Whether all shards of global batch `position` are committed. Raises StorageError if the folder is gone."""
        need = self._first_missing()
        if need is None or need.first_position > position:
            return True
        self._check_there()
        return False

    def ahead(self) -> int:
        """The number of consecutive committed shards after those that the next batch needs."""
        with self._lock:
            self._first_missing()
            number = self._num_begun
            while (need := self._schedule.at(number)) is not None and need.first_position <= self._position:
                number += 1
            return max(self._num_ready - number, 0)

    def needed(self, position: int) -> str:
        """Text that names the first missing shard of batch `position`; "" if none is missing."""
        need = self._first_missing()
        if need is None or need.first_position > position:
            return ""
        return f"shard {need.shard} of packing {need.packing}"

    def close(self) -> None:
        """Ends the thread: no more signs of life from this rank."""
        self._closed = True
        self._woken.set()
        self._beats.join()

    def __enter__(self) -> "LiveSource":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _first_missing(self) -> Need | None:
        with self._lock:
            while (need := self._schedule.at(self._num_ready)) is not None and self._commits.has(need):
                self._num_ready += 1
            return need

    def _check_served(self, packing: int, chunk: int) -> None:
        with self._lock:
            need = self._schedule.of(packing, chunk // self._chunks_per_shard)
        if need is None:
            raise ConfigError(
                f"{self._folder}: has the shards of the global batches {self._run.start} to {self._run.stop - 1}; none "
                f"of these reads chunk {chunk} of packing {packing}; give stream and run the same position, seed and "
                "batch size"
            )

    def _check_there(self) -> None:
        if not (self._folder / RUN_FILE).exists():
            raise _gone(self._folder)

    def _publish(self) -> None:
        freed = self._freed if self._rank == 0 else 0
        with self._lock:  # `advance` closes the files of past shards before it releases the lock
            position, self._unsaid = self._position, False
        try:
            publish(self._folder, self._rank, RankRecord(run_id=self._run.run_id, position=position, freed=freed))
        except FileNotFoundError:
            raise _gone(self._folder) from None
        except StorageError:
            self._unsaid = True
            raise
        self._published = time.monotonic()

    def _delete(self) -> None:
        """Rank 0: deletes the shards that every rank is past, then publishes it."""
        if not self._past:
            return
        self._positions.refresh()
        least = self._positions.least
        with self._lock:
            past = [need for need in self._past if need.last_position < least]
        for need in past:
            remove_shard(self._folder, need, self._manifest.data_schema)
            forget_claim(self._folder, need)
        with self._lock:
            self._past = [need for need in self._past if need.last_position >= least]
        for packing in range(self._first_packing, least // self._steps_per_epoch):
            remove_packing(self._folder, packing)
            self._first_packing = packing + 1
        if least > self._freed:
            self._freed = least
            self._publish()

    def _beat(self) -> None:
        while not self._closed:
            self._woken.wait(BEAT_S)
            self._woken.clear()
            # On a full disk it tries again later. If the folder is gone, the next call of another method raises.
            with contextlib.suppress(StorageError):
                if self._unsaid or time.monotonic() - self._published > self._sign_of_life_s:
                    self._publish()
                self._delete()


def _gone(folder: Path) -> StorageError:
    return StorageError(f"{folder}: the folder of this live run was removed; train again with --live and --resume")
