"""A producer: claims the next shard if there is room for it, writes it, and repeats this until the run has ended.

Any number of producers can work on a run, without a coordinator. OUT/live never exceeds its size limit: shards are
claimed in order. Shard n is claimed only if the shards before it that are not deleted leave room for one more shard of
the largest possible size; uncommitted ones count with that size. Afterwards this sum can only decrease.
"""

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from streamfeat.errors import ConfigError, StorageError
from streamfeat.live.folder import LiveRun, RunWatch, read_run
from streamfeat.live.positions import Positions
from streamfeat.live.schedule import Need, Schedule, fixed_bytes, max_shard_bytes, packing_bytes
from streamfeat.live.shard_files import Commits, claimed, packing_folder, remove_shard
from streamfeat.packings.plan_windows import read_extents, window_tasks
from streamfeat.packings.window_task import WindowTask
from streamfeat.packings.windows import commit_window, lay_window, window_specs
from streamfeat.store.layout import USERS, WINDOWS, create_arrays, create_group
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import check_table
from streamfeat.stream.order import steps_per_epoch

DISK_FULL_PAUSE_S = 3.0
PACKINGS_AHEAD = 1  # write at most one packing after the current one: a run may end long before its last epoch


@dataclass(frozen=True)
class Produced:
    """A shard was committed."""


@dataclass(frozen=True)
class Held:
    """No shard can be written now: enough are written ahead, all are written, or the disk is full."""

    kind: Literal["ahead", "done", "full"]
    reason: str


def produce(root: Path, folder: Path) -> Iterator[Produced | Held]:
    """Writes the shards of the live run `folder` from the dataset `root` until the run has ended.

    It never sleeps: the caller should pause after a `Held`. Raises ConfigError if the run is on another dataset, and
    the errors of reading `root` and of writing, except for a full disk: then it yields `Held` and tries again later.
    """
    try:
        run = read_run(folder)
        watch, producer = RunWatch(folder, run), _Producer(root, folder, run)
        while watch.ended() is None:
            try:
                yield producer.step()
            except FileNotFoundError:
                if watch.ended() is None:
                    raise
    except FileNotFoundError:
        if folder.exists():
            raise  # the run is there, but another file is missing


class _Producer:
    def __init__(self, root: Path, folder: Path, run: LiveRun) -> None:
        self._root, self._folder, self._run = root, folder, run
        manifest = load_manifest(root)
        if manifest.fingerprint != run.fingerprint:
            raise ConfigError(
                f"{folder}: trains on the dataset {run.fingerprint}, but {root} has the fingerprint "
                f"{manifest.fingerprint}; give the dataset of the run"
            )
        check_table(root, USERS, manifest.digests_of(USERS))
        self._manifest = manifest
        self._counts = manifest.splits["training"]
        self._schedule = Schedule(
            self._counts, seed=run.seed, batch_windows=run.batch_windows, start=run.start, stop=run.stop
        )
        self._steps_per_epoch = max(steps_per_epoch(self._counts.windows, run.batch_windows), 1)
        self._positions = Positions(folder, run)
        self._commits = Commits(folder, run.fingerprint)
        self._extent = read_extents(root, manifest.config)["training"]
        self._tasks = lru_cache(maxsize=2)(self._tasks_of)
        self._shard_bytes = max_shard_bytes(manifest)
        self._packing_bytes = packing_bytes(manifest)
        self._first = 0  # number of the first shard that is not deleted
        self._made = -1  # the last packing whose arrays were created
        self._full_until = 0.0
        self._full_reason = ""

    def step(self) -> Produced | Held:
        """Writes one shard, or returns the reason why it cannot."""
        if time.monotonic() < self._full_until:
            return Held("full", self._full_reason)
        self._positions.refresh()
        used, ahead, packings = fixed_bytes(self._run.world_size), 0, set()
        last_packing = self._positions.least // self._steps_per_epoch + PACKINGS_AHEAD
        for need in self._not_deleted():
            if need.packing > last_packing:
                return Held("ahead", f"{ahead} shards ahead, all of this packing and the next")
            if need.packing not in packings:
                packings.add(need.packing)
                used += self._packing_bytes
            size = self._commits.bytes_of(need)
            if size is None and used + self._shard_bytes > self._run.disk_bytes:
                used_mb, all_mb = used / 1e6, self._run.disk_bytes / 1e6
                return Held("ahead", f"{ahead} shards ahead, {used_mb:.1f} of {all_mb:.1f} MB in use")
            if size is None and self._write_if_free(need):
                return Produced()
            used += self._shard_bytes if size is None else size
            ahead += need.first_position > self._positions.least
            if time.monotonic() < self._full_until:
                return Held("full", self._full_reason)
        return Held("done", "all shards of the run are written")

    def _not_deleted(self) -> Iterator[Need]:
        freed = self._positions.freed
        while (need := self._schedule.at(self._first)) is not None and need.last_position < freed:
            self._first += 1
        number = self._first
        while (need := self._schedule.at(number)) is not None:
            if need.last_position >= freed:
                yield need
            number += 1

    def _write_if_free(self, need: Need) -> bool:
        try:
            with claimed(self._folder, need) as mine:
                if not mine or self._commits.has(need):
                    return False
                # Check receipts first, then positions: rank 0 publishes positions before it deletes a receipt.
                self._positions.refresh()
                if need.last_position < self._positions.least:
                    return False
                self._write(need)
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._full_until, self._full_reason = time.monotonic() + DISK_FULL_PAUSE_S, str(error)
            return False
        return True

    def _write(self, need: Need) -> None:
        remove_shard(self._folder, need, self._manifest.data_schema)  # partial files of a killed producer
        try:
            self._make(need)
        except StorageError:
            remove_shard(self._folder, need, self._manifest.data_schema)
            raise

    def _make(self, need: Need) -> None:
        counts, config, schema = self._counts, self._manifest.config, self._manifest.data_schema
        if need.packing != self._made:
            facts = schema.attributes()
            create_group(self._folder / WINDOWS, facts)
            specs = window_specs(schema, counts.windows, counts.chunk_windows, counts.shard_windows, config.compression)
            attributes = facts | {"split": "training", "packing": need.packing}
            create_arrays(packing_folder(self._folder, need.packing), specs, attributes)
            self._made = need.packing
        task = self._tasks(need.packing)[need.shard]
        commit_window(self._folder, f"{WINDOWS}/{need.packing}", task, lay_window(self._root, task))

    def _tasks_of(self, packing: int) -> list[WindowTask]:
        manifest = self._manifest
        return window_tasks(
            manifest.config, manifest.data_schema, "training", packing, self._counts, self._extent, manifest.fingerprint
        )
