"""Recomputes every checksum of a dataset, and lists the files that are missing, truncated, altered or foreign.

It does not follow symbolic links, and checks the announced size of data before it decompresses them.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from streamfeat.errors import DamagedError, StorageError, storage_errors
from streamfeat.progress import Progress
from streamfeat.schema import EVENT_FIELDS
from streamfeat.store.files import LOCK, is_stray_link, open_below, size_and_digest
from streamfeat.store.files import TEMPORARY as TEMPORARY_FILE
from streamfeat.store.layout import HISTORIES, LIVE, MANIFEST, MARKER, METADATA, RECEIPTS, TEMPORARY, WINDOWS
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.store.receipts import FileRecord
from streamfeat.store.writer import read_receipt, receipt_file

QUICK_S = 10.0
SHARD_FILE = re.compile(r"(?P<array>.+)/c/(?P<shard>\d+)(/0)*")


@dataclass(frozen=True)
class Problem:
    """A file that is not as it was committed. The kind `foreign` does not matter to readers; all others are damage."""

    kind: Literal["missing", "truncated", "altered", "foreign"]
    array: str  # path of the array below the dataset; "" if the file belongs to no array
    file: str  # path below the dataset
    chunk: int | None  # number of the chunk in the array; None: the whole file
    what: str

    def __str__(self) -> str:
        where = f"array {self.array}, " if self.array else ""
        chunk = "" if self.chunk is None else f", chunk {self.chunk}"
        return f"{self.kind}: {where}{self.file}{chunk}: {self.what}"


def verify_steps(path: str | Path) -> Iterator[Progress | Problem]:
    """Checks the dataset at `path` against its manifest: every file, every array, every receipt, every name.

    Yields a `Progress` before each file of the manifest and after the last one, and a `Problem` for each finding. The
    dataset is sound if no problem is damage. Raises the errors of `load_manifest`, and StorageError if reading fails.
    """
    root = Path(path)
    manifest = load_manifest(root)
    records = list(manifest.files())
    owners = {record.sha256: record.path for record in records}
    arrays = _num_listed(manifest).keys()
    for done, record in enumerate(records):
        yield Progress("verifying", done, len(records), "files")
        yield from _check_file(root, record, arrays, owners)
    yield Progress("verifying", len(records), len(records), "files")
    yield from check_arrays(root, manifest)
    yield from _check_receipts(root, manifest)
    yield from _check_names(root, manifest)


def check_quickly(root: Path, manifest: Manifest, below: str) -> None:
    """Raises DamagedError if a file of the dataset `root` below its folder `below` is missing or has another size.

    Of the files' contents only metadata are read and compared. So exchanged shard files of other sizes or an edited
    shape are found before the first batch. On a slow disk the check ends after QUICK_S; chunks are checked again when
    they are read.
    """
    deadline = time.monotonic() + QUICK_S
    for record in manifest.files():
        if not record.path.startswith(f"{below}/"):
            continue
        try:
            if record.path.endswith(METADATA):
                sound = size_and_digest(root, record.path) == (record.size, record.sha256)
                what = "was altered"
            else:
                with os.fdopen(open_below(root, record.path), "rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                sound, what = size == record.size, f"has {size} bytes instead of {record.size}"
        except FileNotFoundError:
            sound, what = False, "is missing"
        if not sound:
            match = SHARD_FILE.fullmatch(record.path)
            array = f"array {match['array']}, " if match else ""
            raise DamagedError(
                f"{root}: {array}file {record.path} {what}; `verify` lists all damage, `verify --repair` writes "
                "damaged windows again from the histories"
            )
        if time.monotonic() > deadline:
            return


def _check_file(root: Path, record: FileRecord, arrays: Collection[str], owners: dict[str, str]) -> Iterator[Problem]:
    match = SHARD_FILE.fullmatch(record.path)
    described = record.path.removesuffix(f"/{METADATA}")
    array = match["array"] if match else described if described in arrays else ""
    try:
        size, sha256 = size_and_digest(root, record.path)
    except FileNotFoundError:
        yield Problem("missing", array, record.path, None, "the file is missing")
        return
    except DamagedError as error:
        yield Problem("altered", array, record.path, None, str(error))
        return
    if (size, sha256) == (record.size, record.sha256):
        if match and record.crc32c and not _has_checksum(root, array, int(match["shard"]), record.crc32c):
            what = "the file is right, but the crc32c in its record is wrong: restore the manifest or build again"
            yield Problem("altered", array, record.path, None, what)
        return
    kind: Literal["truncated", "altered"] = "truncated" if size < record.size else "altered"
    if size != record.size:
        what = f"has {size} bytes instead of {record.size}"
    elif sha256 in owners:
        what = f"holds the content of {owners[sha256]}"
    else:
        what = "its SHA-256 is not the committed one"
    chunks = _damaged_chunks(root, array, int(match["shard"])) if match else []
    if not any(chunk is not None for chunk, _ in chunks):
        yield Problem(kind, array, record.path, None, "; ".join([what, *(reason for _, reason in chunks)]))
        return
    for chunk, reason in chunks:
        yield Problem(kind, array, record.path, chunk, f"{reason} ({what})")


def _has_checksum(root: Path, array: str, shard: int, crc32c: str) -> bool:
    try:
        with ArrayReader(root, array, {shard: crc32c}) as reader:
            return reader.is_committed(shard)
    except DamagedError:
        return True  # the array's metadata is damaged; it is checked as a file of its own


def _damaged_chunks(root: Path, array: str, shard: int) -> list[tuple[int | None, str]]:
    try:
        with ArrayReader(root, array) as reader:
            return reader.damage(shard) or [(None, "every chunk matches its own checksum: another file was put here")]
    except DamagedError as error:
        return [(None, f"its chunks cannot be told apart: {error}")]


def check_arrays(root: Path, manifest: Manifest) -> Iterator[Problem]:
    """Checks that every array has the schema's shape and dtype, and that the manifest lists each of its shards."""
    num_listed = _num_listed(manifest)
    expected = _expected_arrays(manifest)
    for array in sorted(num_listed.keys() | expected.keys()):
        file = f"{array}/{METADATA}"
        try:
            with ArrayReader(root, array) as reader:
                spec, found = reader.spec, (reader.shape, reader.dtype)
        except DamagedError as error:
            yield Problem("altered", array, file, None, str(error))
            continue
        if array in expected and found != expected[array]:
            what = "has shape {} of {}, but the manifest says {} of {}".format(*found, *expected[array])
            yield Problem("altered", array, file, None, what)
        elif num_listed[array] != spec.num_shards:
            what = f"has {spec.num_shards} shards, but the manifest lists {num_listed[array]}"
            yield Problem("missing", array, file, None, what)


def _num_listed(manifest: Manifest) -> Counter[str]:
    """The number of shards of each array in the manifest."""
    matches = (SHARD_FILE.fullmatch(record.path) for record in manifest.files())
    return Counter(match["array"] for match in matches if match)


def _expected_arrays(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of each array, by its path."""
    schema = manifest.data_schema
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        f"{HISTORIES}/offsets": ((manifest.num_users + 1,), np.dtype(np.int64))
    }
    for name in EVENT_FIELDS:
        arrays[f"{HISTORIES}/{name}"] = ((manifest.num_events,), schema.field(name).dtype)
    for split, counts in manifest.splits.items():
        for packing in range(counts.packings):
            for field in schema.token_fields():
                array = f"{WINDOWS}/{split}/{packing}/{field.name}"
                arrays[array] = ((counts.windows, schema.window_len), field.dtype)
    return arrays


def _check_receipts(root: Path, manifest: Manifest) -> Iterator[Problem]:
    """Checks that the receipt files agree with the manifest."""
    for receipt in manifest.receipts:
        file = receipt_file(receipt.task)
        if not os.path.lexists(root / file):
            yield Problem("missing", "", file, None, "the receipt is missing")
        elif read_receipt(root, receipt.task) != receipt:
            yield Problem("altered", "", file, None, "the receipt is unreadable or differs from the manifest's")


def _check_names(root: Path, manifest: Manifest) -> Iterator[Problem]:
    """Finds links, and files that no record names."""
    checked = {record.path for record in manifest.files()}
    checked |= {receipt_file(receipt.task) for receipt in manifest.receipts}
    known = checked | {MARKER, MANIFEST, LOCK}
    folders = {str(parent) for file in known for parent in Path(file).parents} | {RECEIPTS}
    pending = [""]
    while pending:
        for entry in _entries(root / pending.pop()):
            name = os.path.relpath(entry.path, root)
            if is_stray_link(root, name):
                if name not in checked:  # others were already reported
                    yield Problem("altered", "", name, None, "a symbolic link, which is not followed; remove it")
            elif entry.is_dir():
                if name in folders:
                    pending.append(name)
                elif name not in (TEMPORARY, LIVE):
                    yield Problem("foreign", "", name, None, "the manifest lists nothing in this folder")
            elif name not in known and not _is_receipt(root, name):
                left = TEMPORARY_FILE.fullmatch(entry.name)
                what = "left by a killed writer; the next build removes it" if left else "not in the manifest"
                yield Problem("foreign", "", name, None, what)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with storage_errors(folder), os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise StorageError(f"{folder}: was moved or removed while it was verified; run verify again") from None


def _is_receipt(root: Path, name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return folder == RECEIPTS and last.endswith(".json") and read_receipt(root, last.removesuffix(".json")) is not None
