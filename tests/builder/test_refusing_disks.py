"""Full or read-only disks, and a temporary folder that another program removes: a clear error, and a rerun finishes.
The tests use real, small file systems if this process may mount them."""

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from whole_builds import build_command, digests, undisturbed

from streamfeat import BuildConfig, build_steps
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import StorageError
from streamfeat.store.verify import Problem, verify_steps

KIB = 1024


@contextlib.contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no right to mount a file system here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("split", ["users:0.01", pytest.param("last:2", marks=pytest.mark.slow)])
def test_a_full_disk_is_an_error_with_the_remedy_and_a_rerun_with_space_finishes(tmp_path: Path, split: str) -> None:
    """File systems of some KiB, each full at another file. After they are made larger, the same bytes are built."""
    events, options, whole = undisturbed(tmp_path, split=split)
    refused = []
    for kib in (4, 12, 40, 100, 160, 230, 300, 420, 600, 780):
        with mounted(tmp_path / "small", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs") as small:
            with pytest.raises(StorageError, match=r"No space left on device.*make space") as caught:
                build_shards([events], small / "out", **options)
            refused.append(str(caught.value).partition(": ")[0])
            assert not (small / "out/dataset.json").exists()
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            build_shards([events], small / "out", **options)
            assert digests(small / "out") == whole
    assert len(set(refused)) >= 8
    assert caught.value.exit_code == 6


def test_a_size_limit_of_files_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    """`ulimit -f`: in a real process, with two workers; exit code 6, and a rerun without the limit finishes."""
    events, options, whole = undisturbed(tmp_path, shard_windows=2048)
    command = build_command(events, tmp_path / "out", options, workers=2)
    limit = 2 * KIB
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    build_shards([events], tmp_path / "out", **options)
    assert digests(tmp_path / "out") == whole


def test_a_read_only_folder_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    """New, half built or finished; even root cannot write there."""
    events, options, whole = undisturbed(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    with contextlib.closing(build_steps([events], disk / "half", BuildConfig(**options))) as steps:
        for step in steps:
            if getattr(step, "stage", "") == "windows":
                break
    with mounted(disk, "--bind", str(disk)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True)
        for out in (disk / "new", disk / "half"):
            with pytest.raises(StorageError, match="Read-only file system; the file system is mounted read-only"):
                build_shards([events], out, **options)
    build_shards([events], disk / "half", **options)
    assert digests(disk / "half") == whole


def test_a_folder_that_becomes_unwritable_is_an_error_and_nothing_committed_is_lost(tmp_path: Path) -> None:
    """`chattr +i` in the middle of the windows."""
    events, options, whole = undisturbed(tmp_path)
    out = tmp_path / "out"
    steps = build_steps([events], out, BuildConfig(**options))
    for step in steps:
        if getattr(step, "stage", "") == "windows":
            break
    if subprocess.run(["chattr", "-R", "+i", out], capture_output=True, check=False).returncode:
        pytest.skip("no right to make files immutable on this file system")
    try:
        with pytest.raises(StorageError, match="not permitted"):
            list(steps)
    finally:
        subprocess.run(["chattr", "-R", "-i", out], check=True)
    build_shards([events], out, **options)
    assert digests(out) == whole


def build_without(events: str, out: Path, options: dict, workers: int, removed: str, when: int) -> int:
    """A build during which `removed` is removed at step number `when`; returns the number of its steps."""
    number = 0
    for step in build_steps([events], out, BuildConfig(**options), workers=workers):
        if type(step).__name__ == "Progress":
            if number == when:
                shutil.rmtree(out / removed)
            number += 1
    return number


@pytest.mark.parametrize(
    ("split", "removed", "workers", "steps"),
    [
        ("users:0.01", "tmp", 1, (0, 2, 5)),
        pytest.param("last:2", "tmp", 1, (1, 3, 6), marks=pytest.mark.slow),
        pytest.param("last:2", "tmp", 2, range(8), marks=pytest.mark.slow),
        pytest.param("users:0.01", ".", 1, range(6), marks=pytest.mark.slow),
    ],
)
def test_a_removed_temporary_folder_is_an_error_and_a_rerun_finishes(
    tmp_path: Path, split: str, removed: str, workers: int, steps: Iterable[int]
) -> None:
    """At any stage that still needs it; the error names the file. Also if the whole folder is removed."""
    events, options, whole = undisturbed(tmp_path, split=split)
    for when in steps:
        out = tmp_path / f"out{when}"
        with pytest.raises(StorageError, match=r"was removed by another program; .*run the same command again"):
            build_without(events, out, options, workers, removed, when)
        build_shards([events], out, **options)
        assert digests(out) == whole


def test_a_temporary_folder_that_is_needed_no_more_may_go(tmp_path: Path) -> None:
    """Windows are made only from histories."""
    events, options, whole = undisturbed(tmp_path)
    num_steps = build_without(events, tmp_path / "out", options, 1, "tmp", 8)
    assert num_steps > 8
    assert digests(tmp_path / "out") == whole
    assert [found for found in verify_steps(tmp_path / "out") if isinstance(found, Problem)] == []
