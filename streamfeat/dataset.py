"""Datasets in Python: `build` makes one, `open_dataset` opens one, `Dataset` gives access to its content."""

from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from os import PathLike
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamfeat.builder.coordinator import build_steps
from streamfeat.builder.repair import Repaired, repair_steps
from streamfeat.call_options import given_path, takes_fields_of
from streamfeat.config import AskedConfig, BuildConfig, Objective, StreamConfig
from streamfeat.errors import ConfigError
from streamfeat.events.table_files import event_files
from streamfeat.export import Exported, export_steps
from streamfeat.plain_text import PrintedLines, date_text
from streamfeat.progress_bars import events_of
from streamfeat.records import validated
from streamfeat.rows import Rows
from streamfeat.schema import STATUSES
from streamfeat.store.histories import HistoryReader
from streamfeat.store.layout import ITEMS, USERS
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.tables import USER_SCHEMA, check_table, read_item_columns, read_user_columns
from streamfeat.store.verify import Problem, verify_steps
from streamfeat.stream.featurize import Allocate
from streamfeat.stream.stream import WindowStream

_NAMED = 3  # a message lists at most so many users


@takes_fields_of(BuildConfig)
def build(
    events: Any,
    out: str | PathLike[str],
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> "Dataset":
    """Build the dataset `out` from `events` and open it. Parts that are already built are kept.

        data = streamfeat.build("ratings.csv", "data", window_len=512)

    events: a path, a table (pandas, polars, Arrow), or a list of these. Columns are recognised by their names.
    workers: number of processes. With more than one, a script must call this below `if __name__ == "__main__":`,
    because each process imports the script. A notebook does not need it.
    progress: True shows bars, False only warnings, None bars in a terminal or notebook.
    options: the fields of `BuildConfig`, such as window_len, split, packings, min_item_events, columns.

    Raises ConfigError, DataError and the other errors of `streamfeat.errors`; their messages say what to do.
    """
    config, root = validated(BuildConfig, options, "build"), given_path("out", out)
    with event_files(events, config.columns) as files:
        steps = build_steps(files.paths, root, config, workers=workers, overwrite=overwrite)
        events_of(files.renamed(steps), progress)
    return Dataset(root)


def open_dataset(path: str | PathLike[str]) -> "Dataset":
    """Open the dataset at `path`. Raises ConfigError if there is none, DamagedError if it cannot be read."""
    return Dataset(path)


class Dataset(PrintedLines):
    """A built dataset: its items, its users and their histories, its windows as a stream.

    `manifest` holds all counts and the configuration; `path` is the folder.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Raises the errors of `open_dataset`."""
        self.path = given_path("path", path).absolute()  # it is read later, maybe after a chdir
        self.manifest: Manifest = load_manifest(self.path)

    @cached_property
    def items(self) -> Rows:
        """Every item: id (dense, as in batches), medium, raw_id, events, title, targets (training events that are not
        planned). Raises DamagedError."""
        table = self._item_table
        return Rows(f"{self.path}: {len(table):,} items", table)

    @cached_property
    def users(self) -> Rows:
        """Every user: id (dense), raw_id, split, events, training_events, validation_events. Raises DamagedError."""
        check_table(self.path, USERS, self.manifest.digests_of(USERS))

        def read(first: int, last: int) -> pa.Table:
            return read_user_columns(self.path, USER_SCHEMA.names, first, last)

        return Rows.read_by(f"{self.path}: {self.manifest.num_users:,} users", read, self.manifest.num_users)

    def history(self, user: str | int) -> Rows:
        """All events of the user with this raw id, oldest first: item (raw id), medium, title, timestamp (UTC), rating,
        status, completion. Raises ConfigError if there is no such user, DamagedError."""
        table = self.history_table(user)
        return Rows(f"{self.path}: user {user}, {len(table):,} events", table)

    def history_table(self, user: str | int) -> pa.Table:
        """The same as `history`, as an Arrow table."""
        place = self.dense_user(user)
        with HistoryReader(self.path, self.manifest) as reader:
            found = reader.read(place, place + 1)
        items = self._item_table.take(pa.array(found.item))
        return pa.table(
            {
                "item": items["raw_id"],
                "medium": items["medium"],
                "title": items["title"],
                "timestamp": pa.array(found.time + self.manifest.data_schema.time_origin, pa.timestamp("s", "UTC")),
                "rating": pa.array(found.rating, from_pandas=True),  # NaN as null
                "status": pa.array(STATUSES).take(pa.array(found.status)),
                "completion": pa.array(found.completion, from_pandas=True),
            }
        )

    def dense_user(self, user: str | int) -> int:
        """The dense id of the user with the raw id `user`. Raises ConfigError if there is none."""
        place: int = pc.index(self._user_ids, pa.scalar(str(user))).as_py()
        if place < 0:
            some = ", ".join(repr(name) for name in self._user_ids.slice(0, _NAMED).to_pylist())
            raise ConfigError(f"{self.path}: no user {str(user)!r}; ids are those of the event files, such as {some}")
        return place

    @takes_fields_of(StreamConfig)
    def stream(
        self,
        *,
        objective: Objective,
        batch_windows: int = 32,
        copy: bool = False,
        allocate: Allocate | None = None,
        **options: Any,
    ) -> WindowStream:
        """Shuffled batches for your own training loop. Arguments and errors are those of `WindowStream`.

        For torch's DataLoader, use `streamfeat.torch.WindowDataset`.
        """
        return WindowStream(
            self.path, objective=objective, batch_windows=batch_windows, copy=copy, allocate=allocate, **options
        )

    def verify(self, *, progress: bool | None = None) -> Rows:
        """Recompute every checksum. Returns a row for each problem, none if the dataset is sound. A problem of the kind
        `foreign` (an unknown file) does not matter to readers; all others are damage."""
        found = events_of(verify_steps(self.path), progress)
        return _problems(f"{self.path}: {len(found)} problems" if found else f"{self.path}: sound", found)

    def repair(self, *, progress: bool | None = None) -> Rows:
        """Write damaged and missing windows again. Returns a row for each such file. Raises DamagedError if other
        damage stays."""
        made = [step.file for step in events_of(repair_steps(self.path), progress) if isinstance(step, Repaired)]
        return Rows(f"{self.path}: sound, {len(made)} files repaired", pa.table({"file": pa.array(made, pa.string())}))

    @takes_fields_of(AskedConfig)
    def export(
        self,
        dest: str | PathLike[str],
        *,
        objective: Objective,
        epoch: int = 0,
        workers: int = 1,
        hdf5: bool = False,
        progress: bool | None = None,
        **options: Any,
    ) -> Exported:
        """Write the inputs and targets of a model as plain arrays to `dest`. Arguments and errors are those of
        `export_steps`."""
        steps = export_steps(
            self.path,
            given_path("dest", dest),
            objective=objective,
            epoch=epoch,
            workers=workers,
            hdf5=hdf5,
            **options,
        )
        (done,) = events_of(steps, progress)
        return done

    @cached_property
    def _item_table(self) -> pa.Table:
        check_table(self.path, ITEMS, self.manifest.digests_of(ITEMS))
        return read_item_columns(self.path)

    @cached_property
    def _user_ids(self) -> pa.ChunkedArray:
        return self.users.to_arrow()["raw_id"]

    def _lines(self) -> Iterable[str]:
        facts = self.manifest
        media = ", ".join(f"{scale.medium} {scale.items:,}" for scale in facts.scales)
        windows = {name: f"{split.windows:,} for {name}" for name, split in facts.splits.items()}
        yield f"Dataset {str(self.path)!r}"
        yield f"  {facts.num_users:,} users, {facts.num_events:,} events, items: {media}"
        yield f"  windows of {facts.data_schema.window_len:,} tokens: {', '.join(windows.values())}"
        if facts.time_split is not None:
            starts = (facts.time_split.validation_start, facts.time_split.test_start)
            yield "  validation from {}, test from {}".format(*map(date_text, starts))


def _problems(title: str, found: list[Problem]) -> Rows:
    columns = {"kind": pa.string(), "array": pa.string(), "file": pa.string(), "chunk": pa.int64(), "what": pa.string()}
    return Rows(title, pa.Table.from_pylist([asdict(problem) for problem in found], pa.schema(columns)))
