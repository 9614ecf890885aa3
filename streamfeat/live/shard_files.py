"""The shards in a live folder: claims them, finds committed ones and their size, and deletes them."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamfeat.errors import storage_errors
from streamfeat.live.folder import LOCKS
from streamfeat.live.schedule import Need, shard_bytes
from streamfeat.packings.window_task import window_task_name
from streamfeat.schema import Schema
from streamfeat.store.layout import RECEIPTS, WINDOWS
from streamfeat.store.receipts import shard_checksums
from streamfeat.store.writer import read_receipt, receipt_file


def packing_folder(folder: Path, packing: int) -> Path:
    """The Zarr group of a live packing."""
    return folder / WINDOWS / str(packing)


class Commits:
    """Knows which shards are committed. It remembers a receipt even after its shard is deleted."""

    def __init__(self, folder: Path, fingerprint: str, fields: Sequence[str] = ()) -> None:
        """fields: the fields for which `shard_checksums` will be called."""
        self._folder, self._fingerprint, self._fields = folder, fingerprint, fields
        self._bytes: dict[int, int] = {}  # by number
        self._checksums: dict[tuple[int, str], dict[int, str]] = {}  # by packing and field

    def bytes_of(self, need: Need) -> int | None:
        """The largest size of the shard on disk; None while it is not committed."""
        if need.number not in self._bytes:
            receipt = read_receipt(self._folder, _task(need))
            if receipt is None or receipt.digest != self._fingerprint:
                return None
            for field in self._fields:
                array = f"{WINDOWS}/{need.packing}/{field}"
                self.shard_checksums(need.packing, field).update(shard_checksums(receipt.files, array))
            self._bytes[need.number] = shard_bytes(receipt.files)
        return self._bytes[need.number]

    def shard_checksums(self, packing: int, field: str) -> dict[int, str]:
        """Number of a shard that `has` found → its record's `crc32c`. Shards found later are added to the mapping."""
        return self._checksums.setdefault((packing, field), {})

    def forget_checksums(self, need: Need) -> None:
        """Forgets the checksums of a shard that is no longer read."""
        for field in self._fields:
            self.shard_checksums(need.packing, field).pop(need.shard, None)

    def has(self, need: Need) -> bool:
        return self.bytes_of(need) is not None


@contextlib.contextmanager
def claimed(folder: Path, need: Need) -> Iterator[bool]:
    """Tries to lock a shard for writing; yields whether it succeeded. The kernel frees the lock of a killed producer.

    Another producer may have committed the shard before, and it may even be deleted: check again before writing.
    """
    path = folder / LOCKS / str(need.number)
    with storage_errors(path), path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def remove_shard(folder: Path, need: Need, schema: Schema) -> None:
    """Deletes a shard, including partial files of a killed producer. The receipt, which commits it, goes first."""
    group = packing_folder(folder, need.packing)
    receipt = folder / receipt_file(_task(need))
    with storage_errors(receipt):
        receipt.unlink(missing_ok=True)
        for left in (folder / RECEIPTS).glob(f".{receipt.name}.*.tmp"):
            left.unlink(missing_ok=True)
        for field in schema.token_fields():
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(group / field.name / "c" / str(need.shard))


def forget_claim(folder: Path, need: Need) -> None:
    """Deletes the lock file of a shard that every rank is past, so no producer claims it again."""
    (folder / LOCKS / str(need.number)).unlink(missing_ok=True)


def remove_packing(folder: Path, packing: int) -> None:
    """Deletes a packing that is no longer read."""
    shutil.rmtree(packing_folder(folder, packing), ignore_errors=True)


def _task(need: Need) -> str:
    return window_task_name("training", need.packing, need.shard)
