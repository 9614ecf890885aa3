"""The build of a dataset from event files: runs all tasks and commits their results.

split → merge item tables → partition [→ filter] → final ids, prefix sums → history → tables → window → manifest
"""

import shutil
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamfeat.builder import assemble
from streamfeat.builder import vocabulary as items
from streamfeat.builder.committed import find_committed
from streamfeat.builder.history_task import EVENT_SHARD, history_specs, run_history
from streamfeat.builder.hold_out import hold_out
from streamfeat.builder.partition_task import run_filter, run_partition
from streamfeat.builder.plan import Plan, check_folder, check_unchanged, claim_folder, make_plan, split_sources
from streamfeat.builder.rejects import check_rejected, collect_rejected
from streamfeat.builder.remarks import remarks
from streamfeat.builder.split_task import run_split
from streamfeat.builder.tasks import KEPT_ITEMS_FILE, FilterTask, HistoryTask, PartitionTask, SplitTask, Task
from streamfeat.builder.time_split import find_cuts
from streamfeat.config import BuildConfig, check_workers
from streamfeat.errors import DamagedError, DataError
from streamfeat.events.titles import read_titles
from streamfeat.packings.plan_windows import create_packings, plan_windows
from streamfeat.packings.window_task import WindowTask
from streamfeat.packings.windows import run_window
from streamfeat.progress import Note, Progress
from streamfeat.records import validated
from streamfeat.schema import FORMAT_VERSION
from streamfeat.store.array_files import write_arrays
from streamfeat.store.dataset_folder import nothing_removed
from streamfeat.store.files import sweep_temporaries
from streamfeat.store.layout import (
    HISTORIES,
    LIVE,
    MANIFEST,
    RECEIPTS,
    TEMPORARY,
    USERS,
    WINDOWS,
    create_arrays,
)
from streamfeat.store.locks import locked
from streamfeat.store.manifest import Manifest, manifest_json
from streamfeat.store.receipts import (
    FilterReceipt,
    HistoryReceipt,
    MetadataReceipt,
    PartitionReceipt,
    Receipt,
    ReceiptT,
    SortedReceipt,
    SplitReceipt,
    WindowReceipt,
)
from streamfeat.store.tables import check_table
from streamfeat.store.writer import commit_receipt, is_committed, write_whole
from streamfeat.workers.pool import WorkerPool

WINDOW_RUN = 4  # a worker takes so many consecutive window tasks at a time, because neighbours share a partition


@dataclass(frozen=True)
class Built:
    """The end of a build."""

    manifest: Manifest
    note: str  # text for the user: what was done
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    peak_memory: int = 0  # bytes, summed over processes


Step = Generator[Progress | Note, None, list[ReceiptT]]


def build_steps(
    events: Sequence[str], out: str | Path, config: BuildConfig, *, workers: int = 1, overwrite: bool = False
) -> Generator[Note | Progress | Built]:
    """Build, or finish building, the dataset `out` from event files; yields progress, at last a `Built`.

    Raises the errors of `streamfeat.errors` for everything that a user can fix. May be called again after any
    interruption; committed tasks are not done again.
    """
    check_workers(workers)
    plan = make_plan(events, out, config)
    yield from map(Note, plan.notes)
    check_folder(plan, overwrite=overwrite)
    with nothing_removed(plan.root), locked(plan.root, "builds"), WorkerPool(_execute, workers) as pool:
        sweep_temporaries(plan.root, LIVE)
        manifest = claim_folder(plan, overwrite=overwrite)
        build = Build(plan, pool)
        if manifest is not None:
            _check_present(plan.root, manifest)
            have = manifest.splits["training"].packings
            if config.packings <= have:
                note = "up to date" if config.packings == have else f"has {have} packings already; nothing changed"
            else:
                check_table(plan.root, USERS, manifest.digests_of(USERS))
                manifest = yield from build.windows(manifest)
                note = f"packings {have} to {config.packings - 1} added"
        else:
            manifest = yield from build.windows((yield from build.histories()))
            note = "built"
        _clear_temporary(plan.root, manifest)
        finished = Built(manifest, note, build.seconds, pool.peak_memory)
    # Told when lock and workers are gone: who hears it may stop listening at once.
    yield finished


def build_shards(events: Sequence[str], out: str | Path, *, workers: int = 1, **options: Any) -> Manifest:
    """Builds the dataset `out` like `build_steps`, without progress, and returns its manifest.

    `options` are the fields of `BuildConfig`. Raises the errors of `streamfeat.errors`.
    """
    config = validated(BuildConfig, options, "build_shards")
    *_, finished = build_steps(events, out, config, workers=workers)
    assert isinstance(finished, Built)
    return finished.manifest


def _execute(root: Path, task: Task) -> Receipt:
    """Runs a task, unless it is committed. Workers call this."""
    receipt = find_committed(root, task)
    if receipt is not None:
        return receipt
    match task:
        case SplitTask():
            return run_split(root, task)
        case PartitionTask():
            return run_partition(root, task)
        case FilterTask():
            return run_filter(root, task)
        case HistoryTask():
            return run_history(root, task)
        case WindowTask():
            return run_window(root, task)


class Build:
    """One run of the coordinator, with its plan, its workers, and the seconds of each stage."""

    def __init__(self, plan: Plan, pool: WorkerPool) -> None:
        self.plan, self.root, self.config, self.pool = plan, plan.root, plan.config, pool
        self.seconds: dict[str, float] = {}

    def stage(
        self, made: type[ReceiptT], name: str, unit: str, tasks: Sequence[Task], sizes: Sequence[int], run_len: int = 1
    ) -> Step[ReceiptT]:
        """Runs the tasks that are not committed yet. Returns the receipts of all tasks, in the order of `tasks`."""
        started = time.monotonic()
        receipts: dict[str, ReceiptT] = {}
        size_of = {task.name: size for task, size in zip(tasks, sizes, strict=True)}
        done, total, lost_a_worker = 0, sum(sizes), False
        yield Progress(name, done, total, unit)
        for step in self.pool.run(self.root, tasks, run_len):
            if isinstance(step, Note):
                lost_a_worker = True
                yield step
                continue
            assert isinstance(step, made)
            receipts[step.task] = step
            done += size_of[step.task]
            yield Progress(name, done, total, unit)
        if lost_a_worker:  # it may have left temporary files; the other workers are idle now
            sweep_temporaries(self.root, LIVE)
        self.seconds[name] = time.monotonic() - started
        return [receipts[task.name] for task in tasks]

    def histories(self) -> Generator[Progress | Note, None, Manifest]:
        """Makes histories and tables of the event files. Returns the manifest without windows."""
        root, config, digest = self.root, self.config, self.plan.digest
        splits, num_partitions, notes = split_sources(self.plan)
        yield from map(Note, notes)
        tasks = [
            SplitTask(split=split, config=config, num_partitions=num_partitions, digest=digest) for split in splits
        ]
        read = yield from self.stage(SplitReceipt, "reading", "rows", tasks, [split.num_rows for split in splits])
        check_unchanged(self.plan.files)
        counts = sum((Counter(receipt.facts.counts) for receipt in read), Counter[str]())
        rejected = collect_rejected(root, read)
        check_rejected(root, config, counts, self.plan.sources)
        assemble.check_media(config, read)
        assemble.check_left(read, counts)
        assemble.check_times(config, counts)

        num_provisional = items.merge_items(root, read)
        gathered = yield from self.stage(
            PartitionReceipt,
            "sorting",
            "partitions",
            [PartitionTask(partition=p, num_splits=len(read), digest=digest) for p in range(num_partitions)],
            [1] * num_partitions,
        )
        counts["duplicates"] = sum(receipt.facts.duplicates for receipt in gathered)
        # A split by time is cut before the filters, because these count training events.
        cuts = find_cuts(root, config, gathered)
        before = cuts.validation if cuts else None
        partitions: Sequence[SortedReceipt] = gathered
        if config.min_item_events > 1 or config.min_user_events > 1:
            partitions = yield from self.filtered(gathered, num_provisional, counts, before)

        division = hold_out(root, config, partitions, num_provisional, cuts)
        events = items.item_events(root, partitions, num_provisional)
        frequency = items.item_events(root, partitions, num_provisional, before)
        vocabulary = items.final_items(root, config, events, frequency)
        vocabulary = items.with_titles(vocabulary, {k: v for s in self.plan.sources for k, v in read_titles(s).items()})
        schema = assemble.schema_of(config, vocabulary, partitions)
        yield from remarks(root, config, partitions)
        offsets = assemble.write_offsets(root, self.plan, schema, partitions)
        num_events = sum(receipt.facts.events for receipt in partitions)
        specs = history_specs(schema, num_events, config.compression)
        create_arrays(root / HISTORIES, specs, schema.attributes())
        sizes = [min(EVENT_SHARD, num_events - first) for first in range(0, num_events, EVENT_SHARD)]
        histories = yield from self.stage(
            HistoryReceipt, "histories", "events", assemble.history_tasks(self.plan, schema, partitions), sizes
        )
        targets = assemble.training_targets(root, histories, schema.num_items)
        tables = assemble.write_tables(root, self.plan, vocabulary, partitions, division.held_out, targets)
        metadata = assemble.commit_metadata(root, HISTORIES, digest, "histories")
        manifest = assemble.draft_manifest(
            self.plan,
            schema,
            vocabulary,
            partitions,
            histories,
            division,
            targets,
            counts,
            [offsets, *map(_without_temporary, histories), tables, metadata],
        )
        if rejected is None:
            return manifest
        report = assemble.commit_rejected(root, digest, rejected)
        return manifest.model_copy(update={"receipts": (*manifest.receipts, report)})

    def filtered(
        self,
        partitions: Sequence[PartitionReceipt],
        num_provisional: int,
        counts: Counter[str],
        before: int | None,
    ) -> Step[FilterReceipt]:
        """Removes rare items, then rare users, in one more pass over the partitions. Events from `before` on (Unix
        seconds) do not count; a minimum of 1 removes nothing."""
        events = items.item_events(self.root, partitions, num_provisional)
        least = self.config.min_item_events
        keep = (items.item_events(self.root, partitions, num_provisional, before) >= least) | (least == 1)
        write_arrays(self.root, KEPT_ITEMS_FILE, {"keep": keep.astype(np.uint8)})
        minimum = self.config.min_user_events
        filtered = yield from self.stage(
            FilterReceipt,
            "filtering",
            "partitions",
            [
                FilterTask(partition=p, min_user_events=minimum, before=before, digest=self.plan.digest)
                for p in range(len(partitions))
            ],
            [1] * len(partitions),
        )
        facts = [receipt.facts for receipt in filtered]
        counts["filtered_by_item"] = sum(each.filtered_by_item for each in facts)
        counts["filtered_by_user"] = sum(each.filtered_by_user for each in facts)
        counts["users_filtered"] = sum(each.users_filtered for each in facts)
        counts["items_filtered"] = int(((events > 0) & ~keep).sum())
        if not any(each.users for each in facts):
            raise DataError(
                f"0 users left: {counts['items_filtered']} items had fewer than --min-item-events "
                f"{least}, then {counts['users_filtered']} users fewer than "
                f"--min-user-events {minimum}; lower them"
            )
        return filtered

    def windows(self, manifest: Manifest) -> Generator[Progress | Note, None, Manifest]:
        """Makes every packing without receipts in `manifest`. Then commits and returns the complete manifest."""
        root = self.root
        there = {receipt.task: receipt for receipt in manifest.receipts if isinstance(receipt, WindowReceipt)}
        splits, tasks = plan_windows(root, self.config, manifest.data_schema, manifest.fingerprint)
        create_packings(root, self.config, manifest.data_schema, splits)
        new = [task for task in tasks if task.name not in there]
        sizes = [task.shard_rows for task in new]
        made = yield from self.stage(WindowReceipt, "windows", "windows", new, sizes, WINDOW_RUN)
        there |= {receipt.task: receipt for receipt in made}
        metadata = assemble.commit_metadata(root, WINDOWS, manifest.fingerprint, f"windows-{self.config.packings}")
        lasting = [receipt for receipt in manifest.receipts if not _is_of_windows(receipt)]
        receipts = (*lasting, metadata, *(there[task.name] for task in tasks))
        for receipt in receipts:
            # The receipt files must equal those in the manifest: in its format, and without temporary files.
            if manifest.format_version != FORMAT_VERSION or isinstance(receipt, HistoryReceipt):
                commit_receipt(root, receipt)
        manifest = manifest.model_copy(
            update={"format_version": FORMAT_VERSION, "splits": splits, "config": self.config, "receipts": receipts}
        )
        write_whole(root, MANIFEST, manifest_json(manifest).encode())
        return manifest


def _is_of_windows(receipt: Receipt) -> bool:
    return isinstance(receipt, WindowReceipt) or (isinstance(receipt, MetadataReceipt) and receipt.store == WINDOWS)


def _without_temporary(receipt: HistoryReceipt) -> HistoryReceipt:
    """The receipt without temporary files."""
    files = tuple(file for file in receipt.files if not file.path.startswith(TEMPORARY))
    return receipt.model_copy(update={"files": files})


def _check_present(root: Path, manifest: Manifest) -> None:
    """Raises DamagedError if a file of a finished dataset is missing or has another size."""
    for receipt in manifest.receipts:
        if not is_committed(root, receipt):
            raise DamagedError(
                f"{root}: files of {receipt.task} are missing or have another size; `verify` lists them, `verify "
                "--repair` writes damaged windows again; restore other files or build again with --overwrite"
            )


def _clear_temporary(root: Path, manifest: Manifest) -> None:
    """Removes temporary files, and the receipts of tasks that wrote only such files. Called after the manifest."""
    lasting = {receipt.task for receipt in manifest.receipts}
    for path in (root / RECEIPTS).glob("*.json"):
        if path.stem not in lasting:
            path.unlink()
    shutil.rmtree(root / TEMPORARY, ignore_errors=True)
