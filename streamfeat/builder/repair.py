"""Repair: writes damaged or missing windows again from the histories, with the same window tasks as the build.

A file is put in its place only if its bytes are those in the manifest. Other damage is only reported: event files may
not exist any more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamfeat.errors import DamagedError, storage_errors
from streamfeat.packings.plan_windows import SplitLabel, create_packings, plan_windows
from streamfeat.packings.window_task import SEGMENTS_FILE, WindowTask
from streamfeat.packings.windows import lay_window, specs_of
from streamfeat.progress import Progress
from streamfeat.store.dataset_folder import check_linked_stores, check_temporary
from streamfeat.store.files import remove, sweep_temporaries
from streamfeat.store.layout import HISTORIES, LIVE, TEMPORARY, USERS, WINDOWS
from streamfeat.store.locks import locked
from streamfeat.store.manifest import Manifest, SplitCounts, load_manifest
from streamfeat.store.marker import mark
from streamfeat.store.receipts import FileRecord, MetadataReceipt, WindowReceipt
from streamfeat.store.verify import Problem, check_arrays, verify_steps
from streamfeat.store.writer import commit_receipt, receipt_file, record_of, write_shard, write_whole

SCRATCH = f"{TEMPORARY}/repair"
_SHOWN = 5  # an error shows so many problems


@dataclass(frozen=True)
class Repaired:
    """A file is in its place again, with the bytes of the manifest."""

    file: str


def repair_steps(path: str | Path) -> Iterator[Progress | Problem | Repaired]:
    """Verifies the dataset at `path`, then writes damaged or missing files of `windows.zarr` and receipts again.

    Yields what `verify_steps` yields, then a `Repaired` for each file. When it ends, the dataset is sound. May be
    killed at any moment and called again. Raises DamagedError if damage stays: in histories, tables or the manifest,
    behind a symbolic link, or if the new bytes differ from the committed ones. Raises LockedError if another process
    works in the folder, and the errors of `verify_steps`.
    """
    root = Path(path)
    manifest = load_manifest(root)
    check_temporary(root)
    check_linked_stores(root)
    with locked(root, "repairs or builds"):
        mark(root, "dataset")  # its links may lead to new, empty folders
        sweep_temporaries(root, LIVE)
        damage: dict[str, Problem] = {}
        for found in verify_steps(root):
            if isinstance(found, Problem) and found.kind != "foreign":
                damage.setdefault(found.file, found)
            yield found
        try:
            yield from _mend(root, manifest, damage)
            # Arrays that are as committed but differ from the manifest: repair cannot change that.
            damage |= {problem.file: problem for problem in check_arrays(root, manifest)}
        finally:
            _clear(root)
    if damage:
        listed = [f"  {problem}" for problem in list(damage.values())[:_SHOWN]]
        raise DamagedError(
            f"{root}: {len(damage)} problems stay; repair only writes windows again, from sound histories:\n"
            + "\n".join(listed)
            + "\nremove symbolic links, restore these files, or build again with --overwrite"
        )


def _mend(root: Path, manifest: Manifest, damage: dict[str, Problem]) -> Iterator[Repaired]:
    """Repairs what it can, and removes it from `damage`."""
    for receipt in manifest.receipts:
        name = receipt_file(receipt.task)
        if name in damage:
            commit_receipt(root, receipt)
            del damage[name]
            yield Repaired(name)
    if any(name == USERS or name.startswith(f"{HISTORIES}/") for name in damage):
        return  # windows made from damaged histories would differ
    if not any(_is_of_windows(name) for name in damage):
        return
    splits, tasks = plan_windows(root, manifest.config, manifest.data_schema, manifest.fingerprint)
    receipts = {receipt.task: receipt for receipt in manifest.receipts if isinstance(receipt, WindowReceipt)}
    for receipt in manifest.receipts:
        if isinstance(receipt, MetadataReceipt) and receipt.store == WINDOWS:
            yield from _mend_metadata(root, manifest, splits, receipt, damage)
    for task in tasks:
        if task.name in receipts:
            yield from _mend_shards(root, task, receipts[task.name], damage)


def _mend_metadata(
    root: Path,
    manifest: Manifest,
    splits: dict[SplitLabel, SplitCounts],
    receipt: MetadataReceipt,
    damage: dict[str, Problem],
) -> Iterator[Repaired]:
    lost = [record for record in receipt.files if record.path in damage]
    if lost:
        scratch = _new_scratch(root)
        create_packings(scratch, manifest.config, manifest.data_schema, splits)
        for record in lost:
            yield from _put_back(root, record_of(scratch, record.path), record, damage)


def _mend_shards(
    root: Path, task: WindowTask, receipt: WindowReceipt, damage: dict[str, Problem]
) -> Iterator[Repaired]:
    lost = {record.path: record for record in receipt.files if record.path in damage}
    if not lost:
        return
    scratch = _new_scratch(root)
    tokens = lay_window(root, task)
    for spec in specs_of(task):
        record = lost.get(f"{task.group}/{spec.shard_file(task.shard)}")
        if record is not None:
            made = write_shard(scratch, task.group, spec, task.shard, tokens[spec.name])
            yield from _put_back(root, made, record, damage)


def _put_back(root: Path, made: FileRecord, record: FileRecord, damage: dict[str, Problem]) -> Iterator[Repaired]:
    """Replaces a damaged file by the new one, if its bytes are right and the path has no symbolic link."""
    if (made.size, made.sha256) != (record.size, record.sha256):
        return
    try:
        write_whole(root, record.path, (root / SCRATCH / record.path).read_bytes())
    except DamagedError:
        return  # a part of the path is a symbolic link
    del damage[record.path]
    yield Repaired(record.path)


def _is_of_windows(name: str) -> bool:
    return name.startswith(f"{WINDOWS}/")


def _new_scratch(root: Path) -> Path:
    scratch = root / SCRATCH
    with storage_errors(scratch):
        remove(scratch)
        scratch.mkdir(parents=True)
    return scratch


def _clear(root: Path) -> None:
    for path in (root / SCRATCH, root / SEGMENTS_FILE):
        with storage_errors(path):
            remove(path)
    temporary = root / TEMPORARY
    if temporary.is_dir() and not any(temporary.iterdir()):
        temporary.rmdir()
