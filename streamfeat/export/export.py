"""The export of features from a dataset to a folder, which appears when it is complete.

During the export, the files and the receipts of its tasks are in a hidden folder next to DEST. A rename publishes them.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamfeat.config import MaskPolicy, Objective, SplitName, StreamConfig, check_workers
from streamfeat.errors import ConfigError, DamagedError, StorageError, refusal, require_extra, storage_errors
from streamfeat.export.check import check_files, check_group
from streamfeat.export.export_task import FEATURES, Export, ExportTask, hdf5_file, run_export
from streamfeat.export.features import causal_spec, token_specs
from streamfeat.export.hdf5 import read_attributes
from streamfeat.plain_text import PrintedLines
from streamfeat.progress import Note, Progress
from streamfeat.records import parse_object, read_back, validated
from streamfeat.store.dataset_folder import nothing_removed
from streamfeat.store.files import foreign_names, read_below, rename_durably, sweep_temporaries
from streamfeat.store.layout import METADATA, create_arrays
from streamfeat.store.locks import locked
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.reader import MAX_METADATA_BYTES
from streamfeat.store.writer import is_committed, read_receipt, write_shard, write_whole
from streamfeat.workers.pool import WorkerPool

PLAN_FILE = "export.json"  # in the hidden folder: describes the export


@dataclass(frozen=True, repr=False)
class Exported(PrintedLines):
    """The end of an export."""

    dest: Path
    note: str  # text for the user: what was done
    num_windows: int
    num_shards: int
    num_bytes: int  # of all files below `dest`
    seconds: float
    peak_memory: int  # bytes, summed over processes

    def _lines(self) -> Iterable[str]:
        yield f"Features {str(self.dest)!r}: {self.note}"
        yield f"  {self.num_windows:,} windows, {self.num_shards:,} shards, {self.num_bytes:,} bytes"


def export_steps(
    dataset: str | Path,
    dest: str | Path,
    *,
    objective: Objective,
    mask_policy: MaskPolicy = "disjoint",
    split: SplitName = "training",
    epoch: int = 0,
    seed: int = 0,
    workers: int = 1,
    hdf5: bool = False,
) -> Generator[Progress | Note | Exported]:
    """Write the features of an objective, of the packing that `epoch` reads, in stored order; at last an `Exported`.

    seed: the run's seed, which decides masks and hidden told times. Validation always uses packing 0 and the masks of
    epoch 0.
    hdf5: write one file for each shard in `dest` instead of Zarr arrays.
    `dest` appears when all shards are committed. After an interruption, the same call continues the export.

    Raises ConfigError if an argument is wrong or `dest` holds something else, LockedError if another process exports
    there, MissingExtraError if `hdf5` needs h5py, StorageError if writing fails, DamagedError if the dataset is
    damaged, and the errors of `load_manifest`.
    """
    if hdf5:
        require_extra("h5py", "hdf5", "--hdf5")
    check_workers(workers)
    root, dest = _resolved(dataset), _resolved(dest)
    manifest = load_manifest(root)
    export = _export_of(manifest, objective, mask_policy, split, epoch, seed, hdf5)
    work = _Work(root, dest, manifest, export)
    started = time.monotonic()
    if work.is_done():
        note = "up to date"
        work.tidy()
        peak_memory = 0
    else:
        work.make_folder()
        with nothing_removed(work.folder), locked(work.folder, "exports"), WorkerPool(run_export, workers) as pool:
            work.claim()
            yield from work.write(pool)
            work.publish()
            note, peak_memory = "exported", pool.peak_memory
    num_bytes = sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())
    yield Exported(dest, note, work.counts.windows, work.num_shards, num_bytes, time.monotonic() - started, peak_memory)


def _resolved(path: str | Path) -> Path:
    loop = ConfigError(f"{path}: a symbolic link in this path leads back to itself; give another folder")
    try:
        resolved = Path(path).resolve()
    except RuntimeError:  # up to Python 3.12
        raise loop from None
    try:
        resolved.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise loop from None
    return resolved


def _export_of(
    manifest: Manifest,
    objective: Objective,
    mask_policy: MaskPolicy,
    split: SplitName,
    epoch: int,
    seed: int,
    hdf5: bool,
) -> Export:
    options = {"objective": objective, "mask_policy": mask_policy, "split": split, "seed": seed, "batch_windows": 1}
    config = validated(StreamConfig, options, "export-features")
    if epoch < 0:
        raise ConfigError(f"export-features: epoch must be at least 0, got {epoch}")
    epoch = 0 if config.split == "validation" else epoch
    return Export(
        fingerprint=manifest.fingerprint,
        objective=config.objective,
        mask_policy=config.mask_policy if config.objective == "masked" else "disjoint",  # causal exports have no masks
        split=config.split,
        epoch=epoch,
        packing=manifest.packing_of(config.split, epoch),
        seed=config.seed,
        hdf5=hdf5,
    )


class _Work:
    """One export: its folders, and the work on them."""

    def __init__(self, dataset: Path, dest: Path, manifest: Manifest, export: Export) -> None:
        if dest.is_relative_to(dataset):
            raise ConfigError(f"{dest}: is inside the dataset; give a folder outside of it")
        self.dest = dest
        self.folder = dest.parent / f".{dest.name}.export"
        self.counts = manifest.splits[export.split]
        self.num_shards = -(-self.counts.windows // self.counts.shard_windows)
        self._dataset, self._export, self._schema = dataset, export, manifest.data_schema
        self._specs = token_specs(manifest, self.counts)
        self._attributes = export.attributes(manifest)
        self._plan = json.dumps(export.model_dump(mode="json"), sort_keys=True)

    def is_done(self) -> bool:
        """Whether `dest` holds this export. False if it is empty or does not exist.

        Raises ConfigError if it holds something else, DamagedError if a file of the export is missing or truncated,
        StorageError if reading fails.
        """
        with storage_errors(self.dest):
            if not self.dest.exists():
                return False
            if not self.dest.is_dir():
                raise ConfigError(f"{self.dest}: is a file; give a folder for the features")
            if os.path.ismount(self.dest):
                raise ConfigError(f"{self.dest}: is a mount point; give a folder below it")
            if not any(self.dest.iterdir()):
                return False
        found = self._found_attributes()
        if found != self._attributes:
            raise ConfigError(_other(f"{self.dest}: is not empty and holds", found, self._attributes))
        self._check_whole(self.dest)
        return True

    def tidy(self) -> None:
        """Removes the hidden folder that a kill just after the rename left. A folder of something else stays."""
        with contextlib.suppress(OSError):  # for instance if the hidden folder's name is too long
            if (self.folder / PLAN_FILE).is_file():
                shutil.rmtree(self.folder, ignore_errors=True)

    def make_folder(self) -> None:
        """Creates the hidden folder if missing.

        Raises ConfigError if a file has its name, StorageError if it cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ConfigError(
                f"{self.folder}: this path or a part of it is a file; move it away, or give another DEST"
            ) from None
        except FileNotFoundError as error:  # for instance in /proc, or if another program removes the parent
            raise StorageError(
                f"{self.folder}: cannot make this folder ({error.strerror}); give another DEST"
            ) from None
        except OSError as error:
            raise refusal(error, self.folder) from None

    def claim(self) -> None:
        """Takes the hidden folder for this export, or continues the export in it.

        Raises ConfigError if it belongs to another export, DamagedError if its description cannot be read.
        """
        found = self._found_plan()
        if found is not None:
            if found != self._export:
                there, wanted = found.model_dump(mode="json"), self._export.model_dump(mode="json")
                raise ConfigError(_other(f"{self.folder}: holds an unfinished export,", there, wanted))
        elif foreign_names(self.folder):
            raise ConfigError(f"{self.folder}: is not empty and is not an unfinished export; move it away")
        write_whole(self.folder, PLAN_FILE, self._plan.encode())
        sweep_temporaries(self.folder)
        with storage_errors(self.folder / FEATURES):
            (self.folder / FEATURES).mkdir(exist_ok=True)

    def write(self, pool: WorkerPool) -> Generator[Progress | Note]:
        """Runs the tasks that are not committed yet."""
        if not self._export.hdf5:
            causal = causal_spec(self._schema)
            create_arrays(self.folder / FEATURES, [causal, *self._specs], self._attributes)
            write_shard(self.folder, FEATURES, causal, 0, np.array([self._export.objective == "causal"]))
        digest = hashlib.sha256(self._plan.encode()).hexdigest()
        tasks = [
            ExportTask(export=self._export, dataset=str(self._dataset), shard=shard, digest=digest)
            for shard in range(self.num_shards)
        ]
        done, left = 0, []
        for task in tasks:
            found = read_receipt(self.folder, task.name)
            if found is not None and found.digest == digest and is_committed(self.folder, found, full=True):
                done += found.rows
            else:
                left.append(task)
        yield Progress("features", done, self.counts.windows, "windows")
        for step in pool.run(self.folder, left):
            if isinstance(step, Note):
                yield step
                continue
            done += step.rows
            yield Progress("features", done, self.counts.windows, "windows")

    def publish(self) -> None:
        """Renames the features to `dest`, then removes the hidden folder.

        Raises DamagedError if another program removed or altered a committed file.
        """
        sweep_temporaries(self.folder)  # a worker that died while it wrote may have left one
        self._check_whole(self.folder / FEATURES)
        with storage_errors(self.dest):
            rename_durably(self.folder / FEATURES, self.dest)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_whole(self, features: Path) -> None:
        """Raises DamagedError if a file of the features in this folder is missing or truncated."""
        folder = self.dest if features == self.dest else self.folder
        remedy = f"remove {folder} and export again"
        if self._export.hdf5:
            check_files(features, self.num_shards, self._attributes, remedy)
        else:
            check_group(features, [causal_spec(self._schema), *self._specs], remedy)

    def _found_attributes(self) -> dict[str, Any]:
        """The attributes of the export in `dest`; {} if there is no export of this kind."""
        if self._export.hdf5:
            first = self.dest / hdf5_file(0)
            return read_attributes(first) if first.is_file() else {}
        try:
            document = parse_object(read_below(self.dest, METADATA, MAX_METADATA_BYTES), str(self.dest), "")
        except (FileNotFoundError, DamagedError):
            return {}
        attributes = document.get("attributes")
        return attributes if isinstance(attributes, dict) else {}

    def _found_plan(self) -> Export | None:
        """The description in the hidden folder; None if there is none."""
        try:
            data = read_below(self.folder, PLAN_FILE, MAX_METADATA_BYTES)
        except FileNotFoundError:
            return None
        return read_back(Export, data, self.folder / PLAN_FILE, f"remove {self.folder} and export again")


def _other(where: str, found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The message about a folder that does not belong to this export."""
    lines = [
        f"  {key}: there {found.get(key)!r}, now {value!r}" for key, value in wanted.items() if found.get(key) != value
    ]
    what = "no features" if not found.keys() & wanted.keys() else "features of other options:\n" + "\n".join(lines)
    return f"{where} {what}\ngive the same options, an empty or new folder, or remove it (nothing was changed)"
