"""Writes the files of a task: shard files whole, then the receipt. Every call may be repeated."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import RootModel

from streamfeat.errors import DamagedError
from streamfeat.records import read_back
from streamfeat.store.codecs import ABSENT, CRC_BYTES, crc32c, encode_chunk
from streamfeat.store.files import open_below, read_below, size_and_digest, write_durably
from streamfeat.store.layout import METADATA, RECEIPTS, ArraySpec
from streamfeat.store.receipts import CommonReceipt, FileRecord, Receipt

MAX_RECEIPT_BYTES = 2**26


class _ReceiptFile(RootModel[Receipt]):
    pass


def write_shard(root: Path, group: str, spec: ArraySpec, shard: int, values: NDArray[Any]) -> FileRecord:
    """Writes shard number `shard` of the array `spec` in the group `group` below `root`.

    `values` are all rows of the shard: (spec.shard_rows, *spec.row_shape); the last shard may have fewer rows. The same
    values give the same bytes. Only one process may write a shard at a time.
    """
    first = shard * spec.shard_rows
    rows = min(spec.num_rows, first + spec.shard_rows) - first
    assert values.shape == (rows, *spec.row_shape), (values.shape, rows, spec)
    assert values.dtype == spec.dtype, (values.dtype, spec)
    path = f"{group}/{spec.shard_file(shard)}"
    checksums = bytearray()
    size, sha256 = write_durably(root, path, _shard_parts(spec, values, checksums))
    return FileRecord(path=path, size=size, sha256=sha256, crc32c=crc32c(np.frombuffer(checksums, np.uint8)).hex())


def _shard_parts(spec: ArraySpec, values: NDArray[Any], checksums: bytearray) -> Iterator[memoryview | bytes]:
    """The bytes of a shard file in order: each chunk and its crc32c, which `checksums` collects, then the index and
    its crc32c."""
    values = np.ascontiguousarray(values, spec.dtype.newbyteorder("<"))
    index = np.full((spec.chunks_per_shard, 2), ABSENT, "<u8")  # chunks beyond the array's end stay absent
    offset = 0
    for chunk, start in enumerate(range(0, len(values), spec.chunk_rows)):
        rows = values[start : start + spec.chunk_rows]
        if len(rows) < spec.chunk_rows:  # the array ends inside this chunk, which is stored whole
            padded = np.full((spec.chunk_rows, *spec.row_shape), spec.fill_value, values.dtype)
            padded[: len(rows)] = rows
            rows = padded
        encoded = encode_chunk(rows, spec.compression)
        yield encoded.data
        checksum = crc32c(encoded)
        yield checksum
        checksums += checksum
        index[chunk] = offset, encoded.size + CRC_BYTES
        offset += encoded.size + CRC_BYTES
    tail = index.reshape(-1).view(np.uint8)
    yield tail.data
    yield crc32c(tail)


def write_whole(root: Path, path: str, data: bytes | bytearray) -> FileRecord:
    """Writes a small file below `root`, whole and durably. Replaces an existing file."""
    size, sha256 = write_durably(root, path, [data])
    return FileRecord(path=path, size=size, sha256=sha256)


def record_of(root: Path, path: str) -> FileRecord:
    """The record of an existing file below `root`, with its SHA-256. Raises FileNotFoundError if it does not exist."""
    size, sha256 = size_and_digest(root, path)
    return FileRecord(path=path, size=size, sha256=sha256)


def metadata_records(root: Path, store: str) -> tuple[FileRecord, ...]:
    """Records of every `zarr.json` of a Zarr store below `root`, by path, for the manifest.

    These files are small, but they determine the meaning of all data (a changed scale factor changes ratings), so they
    are committed like shards.
    """
    names = []
    for folder, folders, files in os.walk(root / store):
        folders[:] = [name for name in folders if name != "c"]  # `c` holds only shards
        if METADATA in files:
            names.append((Path(folder) / METADATA).relative_to(root).as_posix())
    return tuple(record_of(root, name) for name in sorted(names))


def receipt_file(task: str) -> str:
    """The path of the receipt of `task` below the dataset folder."""
    return f"{RECEIPTS}/{task}.json"


def commit_receipt(root: Path, receipt: CommonReceipt) -> None:
    """Commits a task whose files are durably on disk.

    Replaces an existing receipt: either it was invalid, because its files did not match, or it is equal.
    """
    text = json.dumps(receipt.model_dump(mode="json"), indent=1, ensure_ascii=False, sort_keys=True)
    write_durably(root, receipt_file(receipt.task), [text.encode() + b"\n"])


def read_receipt(root: Path, task: str) -> Receipt | None:
    """The receipt of `task`; None if there is no readable one. Then the task is done again."""
    name = receipt_file(task)
    try:
        data = read_below(root, name, MAX_RECEIPT_BYTES)
        receipt = read_back(_ReceiptFile, data, name, "the task is done again").root
    except (FileNotFoundError, DamagedError):
        return None
    return receipt if receipt.task == task else None


def is_committed(root: Path, receipt: CommonReceipt, *, full: bool = False) -> bool:
    """Whether every file of the receipt exists below `root` with its size (and, if `full`, its checksum)."""
    return all(_holds(root, record, full) for record in receipt.files)


def _holds(root: Path, record: FileRecord, full: bool) -> bool:
    try:
        if full:
            return size_and_digest(root, record.path) == (record.size, record.sha256)
        with os.fdopen(open_below(root, record.path), "rb", buffering=0) as file:
            return file.seek(0, 2) == record.size
    except (FileNotFoundError, DamagedError):
        return False
