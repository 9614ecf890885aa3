"""Files are written whole or not at all, for any interruption of the writer; receipts count only with their files."""

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_arrays import COMPRESSIONS, array_spec, flip, truncate, values_of, write_array

from streamfeat.config import Compression
from streamfeat.errors import DamagedError, StorageError
from streamfeat.store.files import sweep_temporaries
from streamfeat.store.layout import RECEIPTS
from streamfeat.store.reader import ArrayReader
from streamfeat.store.receipts import FileRecord, TablesReceipt
from streamfeat.store.writer import commit_receipt, is_committed, read_receipt, record_of, write_shard, write_whole


def files_below(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_same_values_give_the_same_bytes(tmp_path: Path, compression: Compression) -> None:
    """A shard's bytes depend only on its values, not on memory layout, time or an older file."""
    spec = array_spec(21, (6,), "uint32", compression=compression)
    values = values_of(spec)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write_array(tmp_path / "a", "group", spec, values)
    strided = np.asfortranarray(np.repeat(values, 2, axis=0))[::2]
    write_array(tmp_path / "b", "group", spec, np.zeros_like(values))
    second = write_array(tmp_path / "b", "group", spec, strided)
    assert first == second
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


def test_the_rest_of_the_last_chunk_holds_the_fill_value(tmp_path: Path) -> None:
    """Rows after the array's end are stored as fill values, as by zarr-python, never as old memory."""
    spec = array_spec(5, fill_value=7)
    write_array(tmp_path, "group", spec, values_of(spec))
    metadata = tmp_path / "group" / "item" / "zarr.json"
    values = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**values, "shape": [8, 5]}))
    with ArrayReader(tmp_path, "group/item") as reader:
        np.testing.assert_array_equal(reader.read_rows(5, 8), np.full((3, 5), 7))


def test_a_record_says_what_lies_on_disk(tmp_path: Path) -> None:
    """Size and SHA-256 of a `FileRecord` are those of the file, for each function that makes one."""
    spec = array_spec(21)
    records = [*write_array(tmp_path, "group", spec, values_of(spec)), write_whole(tmp_path, "a/b.json", b"{}")]
    for record in records:
        data = (tmp_path / record.path).read_bytes()
        expected = FileRecord(path=record.path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        assert record.model_copy(update={"crc32c": ""}) == expected == record_of(tmp_path, record.path)
    with pytest.raises(FileNotFoundError):
        record_of(tmp_path, "a/other.json")


def test_bytes_are_on_disk_before_their_name_and_the_name_before_the_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order of the calls: fsync of the file, rename, fsync of its folder; only then the receipt, the same way.

    Only so does no power loss leave a receipt without its files.
    """
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(fd: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        fsync(fd)

    def recorded_rename(src: Any, dst: Any, **folders: Any) -> None:
        calls.append(f"rename {dst}")
        rename(src, dst, **folders)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name open files")
    spec = array_spec(4)
    (tmp_path / "group/item/c/0").mkdir(parents=True)
    (tmp_path / RECEIPTS).mkdir()
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    record = write_shard(tmp_path, "group", spec, 0, values_of(spec))
    commit_receipt(tmp_path, receipt_of(record))
    kinds = ["fsync-tmp" if call.endswith(".tmp") else call for call in calls]
    assert kinds == ["fsync-tmp", "rename 0", "fsync 0", "fsync-tmp", "rename task-1.json", f"fsync {RECEIPTS}"]


def test_new_folders_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's own entry is fsynced in its parent: otherwise a power failure may remove the whole folder."""
    synced: list[str] = []
    fsync = os.fsync

    def recorded(fd: int) -> None:
        synced.append(os.path.realpath(f"/dev/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recorded)
    write_whole(tmp_path, "a/b/file", b"x")
    root = os.path.realpath(tmp_path)
    assert {root, f"{root}/a", f"{root}/a/b"} <= set(synced)


KILLED_SCRIPT = """
import os, signal, sys
import numpy as np
from pathlib import Path
from streamfeat.store.receipts import TablesReceipt
from streamfeat.store.writer import commit_receipt, write_shard
sys.path.insert(0, sys.argv[3])
from stored_arrays import array_spec, values_of
root, left = Path(sys.argv[1]), int(sys.argv[2])

def counted(call):
    def wrapper(*args, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    return wrapper

os.mkdir, os.fsync, os.rename = counted(os.mkdir), counted(os.fsync), counted(os.rename)
spec = array_spec(8)
record = write_shard(root, "group", spec, 0, values_of(spec))
commit_receipt(root, TablesReceipt(task="task-1", digest="d", rows=8, files=(record,)))
"""


def test_a_kill_at_any_call_leaves_all_or_nothing(tmp_path: Path) -> None:
    """SIGKILL before each mkdir, fsync and rename: the shard is whole or absent, a receipt has its whole shard.

    Done again after the last kill, the bytes are those of an undisturbed run, once temporary files are swept.
    """
    undisturbed, root = tmp_path / "undisturbed", tmp_path / "killed"
    spec = array_spec(8)
    for folder in (undisturbed, root):
        folder.mkdir()
    record = write_shard(undisturbed, "group", spec, 0, values_of(spec))
    commit_receipt(undisturbed, receipt_of(record))
    num_kills = num_whole = 0
    for point in range(1, 30):
        command = [sys.executable, "-c", KILLED_SCRIPT, str(root), str(point), str(Path(__file__).parent)]
        run = subprocess.run(command, capture_output=True, text=True)
        names = {name for name in files_below(root) if not name.endswith(".tmp")}
        for name in names:
            assert (root / name).read_bytes() == (undisturbed / name).read_bytes()
        receipt = read_receipt(root, "task-1")
        assert receipt is None or is_committed(root, receipt, full=True)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
        num_kills += 1
        num_whole += record.path in names
    assert num_kills >= 6
    assert 0 < num_whole < num_kills
    assert sweep_temporaries(root)
    assert files_below(root) == files_below(undisturbed)


def test_a_full_disk_is_a_storage_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    """The error names file and remedy; the old file stays, and no temporary one."""
    spec = array_spec(8, (4000,), compression="none")
    old = values_of(spec)
    write_array(tmp_path, "group", spec, old)
    before = files_below(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"group/item/c/0/0.*ulimit -f"):
            write_shard(tmp_path, "group", spec, 0, values_of(spec, seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
def test_each_refusal_of_the_system_has_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Disk full, quota, permission, read-only and device errors at fsync become exit code 6 with path and remedy."""

    def refused(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(StorageError, match=os.strerror(code)) as caught:
        write_whole(tmp_path, "file.json", b"{}")
    assert str(tmp_path / "file.json") in str(caught.value)
    assert ":" in str(caught.value).split(os.strerror(code))[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/", ".", "a\nb", "CON", "a" * 65])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """Names of files come from the field table or a manifest; none leads outside the dataset's folder."""
    with pytest.raises(DamagedError, match="cannot name"):
        write_whole(tmp_path, name, b"x")
    with pytest.raises(DamagedError, match="cannot name"):
        record_of(tmp_path, name)


def test_a_planted_folder_link_does_not_lead_a_write_outside(tmp_path: Path) -> None:
    """zarr-python writes through a linked folder. Here this is an error, and no file appears outside."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "group" / "item").mkdir(parents=True)
    spec = array_spec(8)
    (root / "group" / "item" / "c").symlink_to(outside)
    with pytest.raises(DamagedError, match="link"):
        write_shard(root, "group", spec, 0, values_of(spec))
    assert list(outside.iterdir()) == []


def test_a_planted_file_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    """The file behind the link stays as it was."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").symlink_to(secret)
    write_whole(tmp_path / "root", "file", b"new")
    assert secret.read_bytes() == b"secret"
    assert not (tmp_path / "root" / "file").is_symlink()


def receipt_of(*records: FileRecord) -> TablesReceipt:
    return TablesReceipt(task="task-1", digest="d", rows=8, files=records)


@pytest.fixture
def committed(tmp_path: Path) -> TablesReceipt:
    receipt = receipt_of(write_whole(tmp_path, "a", b"one"), write_whole(tmp_path, "b/c", b"two"))
    commit_receipt(tmp_path, receipt)
    return receipt


def test_a_receipt_reads_back_as_committed(tmp_path: Path, committed: TablesReceipt) -> None:
    """A receipt is read as it was written, and may be committed again."""
    assert read_receipt(tmp_path, "task-1") == committed
    assert is_committed(tmp_path, committed, full=True)
    commit_receipt(tmp_path, committed)
    assert read_receipt(tmp_path, "task-1") == committed
    assert read_receipt(tmp_path, "task-2") is None


def test_a_damaged_receipt_counts_as_none(tmp_path: Path, committed: TablesReceipt) -> None:
    """A receipt that is truncated, foreign or of another task is invalid: its task is done again, without an error."""
    file = tmp_path / RECEIPTS / "task-1.json"
    sound = file.read_bytes()
    for size in range(len(sound) - 1):
        file.write_bytes(sound[:size])
        assert read_receipt(tmp_path, "task-1") is None
    for content in (b"[]", b"3", b"\xff", sound.replace(b'"rows"', b'"lines"'), sound.replace(b"task-1", b"task-2")):
        file.write_bytes(content)
        assert read_receipt(tmp_path, "task-1") is None


def test_a_receipt_without_its_files_is_void(tmp_path: Path, committed: TablesReceipt) -> None:
    """A missing or short file makes the receipt invalid; an altered one does so if checksums are compared."""
    (tmp_path / "a").unlink()
    assert not is_committed(tmp_path, committed)
    write_whole(tmp_path, "a", b"one")
    assert is_committed(tmp_path, committed)
    flip(tmp_path / "b" / "c", 1)
    assert is_committed(tmp_path, committed)
    assert not is_committed(tmp_path, committed, full=True)
    truncate(tmp_path / "b" / "c", 2)
    assert not is_committed(tmp_path, committed)
    (tmp_path / "b" / "c").unlink()
    (tmp_path / "b" / "c").symlink_to(tmp_path / "a")  # the right size, but a link
    assert not is_committed(tmp_path, committed)


def test_disjoint_shards_of_one_array_are_written_by_several_processes(tmp_path: Path) -> None:
    """Three processes write different shards of one array, and all rows are right."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path\n"
        "from stored_arrays import array_spec, values_of\n"
        "from streamfeat.store.writer import write_shard\n"
        "spec = array_spec(200); values = values_of(spec)\n"
        "for n in range(int(sys.argv[2]), spec.num_shards, 3):\n"
        "    write_shard(Path(sys.argv[1]), 'group', spec, n, values[n * 8 : n * 8 + 8])\n"
    )
    folder = str(Path(__file__).parent)
    workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n), folder]) for n in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    spec = array_spec(200)
    undisturbed = tmp_path / "one"
    undisturbed.mkdir()
    write_array(undisturbed, "group", spec, values_of(spec))
    for name, data in files_below(undisturbed).items():
        if "/c/" in name:
            assert (tmp_path / name).read_bytes() == data
    with ArrayReader(undisturbed, "group/item") as reader:
        np.testing.assert_array_equal(reader.read_rows(0, 200), values_of(spec))
