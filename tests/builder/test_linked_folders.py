"""A dataset whose stores lie on another disk, behind symbolic links: all that a dataset is good for works there.

Nothing is followed below them, and nothing but what a build made is ever removed there.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_builds import OPTIONS, digests, undisturbed

from streamfeat.builder.coordinator import build_shards, build_steps
from streamfeat.builder.repair import repair_steps
from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, StorageError, StreamfeatError
from streamfeat.store.files import MAY_BE_LINKS
from streamfeat.store.layout import HISTORIES, LIVE, WINDOWS
from streamfeat.store.verify import Problem, verify_steps
from streamfeat.stream.stream import WindowStream
from train.runs.checkpoint import CHECKPOINTS
from train.training.loop import train_steps

SHARD = "windows.zarr/training/0/item/c/0/0"
STORES = ("windows.zarr", "histories.zarr")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, str]]:
    """Events, a dataset of them without links, and its digests."""
    folder = tmp_path_factory.mktemp("whole")
    events, _, _ = undisturbed(folder)
    return events, folder / "whole", all_digests(folder / "whole")


def build(events: str, out: Path, *, overwrite: bool = False, **options: int) -> None:
    for _ in build_steps([events], out, BuildConfig(**(OPTIONS | options)), overwrite=overwrite):
        pass


def linked(out: Path, *names: str) -> Path:
    """Makes links of these names in `out` to folders on another disk and moves the content there; returns the disk."""
    disk = out.parent / "disk"
    out.mkdir(exist_ok=True)
    for name in names:
        if (out / name).exists():
            disk.mkdir(exist_ok=True)
            shutil.move(out / name, disk / name)
        else:
            (disk / name).mkdir(parents=True)
        (out / name).symlink_to(disk / name)
    return disk


def all_digests(out: Path) -> dict[str, str]:
    """`digests`, including the files behind the links, without the marker (it holds the targets of the links)."""
    behind = {f"{name}/{file}": digest for name in STORES for file, digest in digests((out / name).resolve()).items()}
    plain = {name: digest for name, digest in digests(out).items() if name != ".streamfeat"}
    return plain | behind


def problems(out: Path) -> list[Problem]:
    return [step for step in verify_steps(out) if isinstance(step, Problem)]


def test_links_may_stand_where_the_layout_has_large_folders() -> None:
    """The list contains these names; they equal the constants of the modules that own the folders."""
    assert {CHECKPOINTS, HISTORIES, LIVE, WINDOWS} == MAY_BE_LINKS


def test_a_dataset_behind_links_is_built_streamed_verified_extended_repaired_and_overwritten(
    tmp_path: Path, whole: tuple[str, Path, dict[str, str]]
) -> None:
    """With the same bytes as without links. The links and the folders behind them stay."""
    events, plain, expected = whole
    out = tmp_path / "out"
    disk = linked(out, *STORES)
    inodes = {name: (disk / name).stat().st_ino for name in STORES}
    build(events, out)
    assert all_digests(out) == expected
    assert problems(out) == []
    with (
        WindowStream(out, objective="causal", batch_windows=8) as stream,
        WindowStream(plain, objective="causal", batch_windows=8) as same,
    ):
        for batch, other in zip(stream, same, strict=True):
            assert all((batch[name] == other[name]).all() for name in other)
    build(events, out, packings=3)
    assert (disk / "windows.zarr/training/2/item/c/0/0").exists()
    build(events, out, overwrite=True)
    assert all_digests(out) == expected
    (out / SHARD).unlink()
    (disk / "windows.zarr" / f".zarr.json.7.{'a' * 32}.tmp").write_text("left by a killed writer")
    list(repair_steps(out))
    assert all_digests(out) == expected
    shutil.rmtree(disk / "windows.zarr")
    (disk / "windows.zarr").mkdir()
    list(repair_steps(out))
    assert all_digests(out) == expected
    assert all((out / name).is_symlink() for name in STORES)
    assert (disk / "histories.zarr").stat().st_ino == inodes["histories.zarr"]


def test_a_dataset_may_itself_be_a_link(tmp_path: Path, whole: tuple[str, Path, dict[str, str]]) -> None:
    """A path that the user gives may be a link."""
    events, _, expected = whole
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    build(events, tmp_path / "out")
    assert all_digests(tmp_path / "disk") == expected
    assert problems(tmp_path / "out") == []


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from streamfeat.config import BuildConfig
from streamfeat.builder.coordinator import build_steps
remove, left = shutil.rmtree, int(sys.argv[3])
def killed(path, *args, **kwargs):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    remove(path, *args, **kwargs)
shutil.rmtree = killed
list(build_steps([sys.argv[1]], sys.argv[2], BuildConfig(window_len=64), overwrite=True))
"""


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 6, 9))])
def test_an_overwrite_that_was_killed_while_it_emptied_a_linked_folder_goes_on(
    tmp_path: Path, whole: tuple[str, Path, dict[str, str]], number: int
) -> None:
    """SIGKILL after a number of removed folders: the rest is still known as a build's."""
    events, plain, _ = whole
    out = tmp_path / "out"
    shutil.copytree(plain, out)
    linked(out, *STORES)
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, tmp_path / "killed.py", events, out, str(number)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (out / "dataset.json").exists()
    for _ in build_steps([events], out, BuildConfig(window_len=64)):
        pass
    build_shards([events], tmp_path / "other", window_len=64)
    assert all_digests(out) == all_digests(tmp_path / "other")


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("what", ["another store", "one file more", "no store", "new"])
def test_nothing_of_others_behind_a_link_is_touched(
    tmp_path: Path, whole: tuple[str, Path, dict[str, str]], name: str, what: str
) -> None:
    """Not by a build, `--overwrite` or a repair. The error has a remedy that works."""
    events, plain, expected = whole
    out, disk = tmp_path / "out", tmp_path / "disk" / name
    if what == "new":  # no build has been here yet
        linked(out, name)
        (disk / "training").mkdir()
    else:
        shutil.copytree(plain, out)
        linked(out, name)
    if what == "another store":
        shutil.rmtree(disk)
        (disk / "training").mkdir(parents=True)
        (disk / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"mine": 1}}')
    if what == "no store":
        (disk / "zarr.json").unlink()
    (disk / ("training" if what == "new" else "") / "precious").write_text("mine")
    if what == "another store":
        (disk / "precious").rename(disk / "training/precious")
    before = digests(disk)
    calls: list[Callable[[], object]] = [
        lambda: build(events, out, packings=3), lambda: build(events, out, overwrite=True)
    ]  # fmt: skip
    for call in calls if what == "new" else [*calls, lambda: list(repair_steps(out))]:
        with pytest.raises(
            ConfigError, match=r"holds files that no build wrote; empty|is not empty and does not hold a dataset"
        ):
            call()
        assert digests(disk) == before
    shutil.rmtree(disk)
    disk.mkdir()
    build(events, out, overwrite=True)
    assert all_digests(out) == expected


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("windows.zarr", "relinked"), ("windows.zarr", "once no link"), ("windows.zarr", "copied"),
        ("histories.zarr", "copied"), ("windows.zarr", "of an older build"), ("histories.zarr", "relinked"),
    ],
)  # fmt: skip
def test_another_dataset_s_store_behind_a_link_is_not_touched(
    tmp_path: Path, whole: tuple[str, Path, dict[str, str]], name: str, case: str
) -> None:
    """A store of our shape may be another dataset's, built of the same events, perhaps to the same bytes."""
    events, _, _ = whole
    other, out = tmp_path / "other/out", tmp_path / "out"
    other.parent.mkdir()
    linked(other, name)
    build(events, other)
    if case == "copied":
        shutil.copytree(other, out, symlinks=True)
    else:
        if case != "once no link":
            linked(out, name)
        build(events, out, seed=0 if case == "relinked" else 7)
        if (out / name).is_symlink():
            (out / name).unlink()
        else:
            shutil.rmtree(out / name)
        (out / name).symlink_to((other / name).resolve())
    if case == "of an older build":
        (out / ".streamfeat").write_text('{"holds": "dataset", "emptying": false}')
    before = all_digests(other)
    for call in (lambda: build(events, out, seed=3, overwrite=True), lambda: list(repair_steps(out))):
        with pytest.raises(ConfigError, match=f"seems to hold the {name} of another dataset"):
            call()
    assert all_digests(other) == before
    (out / name).unlink()
    build(events, out, overwrite=True)
    assert problems(out) == problems(other) == []


def test_stores_whose_disk_has_another_name_or_is_new_are_still_ours(
    tmp_path: Path, whole: tuple[str, Path, dict[str, str]]
) -> None:
    """Known by what the receipts say of them; an empty disk takes what a repair makes. A dataset may be moved, too."""
    events, _, expected = whole
    out = tmp_path / "out"
    disk = linked(out, *STORES)
    build(events, out)
    disk.rename(tmp_path / "renamed")
    (tmp_path / "new").mkdir()
    for name, target in (("histories.zarr", "renamed/histories.zarr"), ("windows.zarr", "new")):
        (out / name).unlink()
        (out / name).symlink_to(tmp_path / target)
    list(repair_steps(out))
    assert all_digests(out) == expected
    out = out.rename(tmp_path / "moved")
    build(events, out, packings=3)
    build(events, out, overwrite=True)
    assert all_digests(out) == expected


@pytest.mark.parametrize("name", STORES)
def test_a_link_that_leads_nowhere_is_an_error_with_the_remedy(
    tmp_path: Path, whole: tuple[str, Path, dict[str, str]], name: str
) -> None:
    """For all calls: a disk that is not mounted is not damage, and no file is created in its place."""
    events, plain, expected = whole
    out = tmp_path / "out"
    shutil.copytree(plain, out)
    disk = linked(out, name)
    disk.rename(tmp_path / "away")
    calls: list[Callable[[], object]] = [
        lambda: build(events, out), lambda: build(events, out, packings=3), lambda: build(events, out, overwrite=True),
        lambda: problems(out), lambda: list(repair_steps(out)),
    ]  # fmt: skip
    if name == "windows.zarr":
        calls.append(lambda: list(WindowStream(out, objective="causal", batch_windows=8)))
    for call in calls:
        with pytest.raises(StorageError, match=rf"{name}: is a symbolic link to .*mount its disk"):
            call()
        assert not disk.exists()
    (tmp_path / "away").rename(disk)
    assert problems(out) == []
    assert all_digests(out) == expected


@pytest.mark.parametrize("name", ["windows.zarr/training", "windows.zarr/training/0/item/c", "histories.zarr/item"])
def test_no_link_is_followed_behind_a_link(tmp_path: Path, whole: tuple[str, Path, dict[str, str]], name: str) -> None:
    """Behind an allowed link, other links are still not followed."""
    events, plain, expected = whole
    out = tmp_path / "out"
    shutil.copytree(plain, out)
    disk = linked(out, *STORES)
    shutil.move(disk / name, tmp_path / "outside")
    (disk / name).symlink_to(tmp_path / "outside")
    before = digests(tmp_path / "outside")
    assert any("link" in problem.what for problem in problems(out))
    for call in (lambda: build(events, out, packings=3), lambda: list(repair_steps(out))):
        with pytest.raises(StreamfeatError, match="link"):
            call()
    build(events, out, overwrite=True)
    assert digests(tmp_path / "outside") == before
    assert all_digests(out) == expected


def test_live_runs_may_lie_behind_a_link(tmp_path: Path, tiny_dataset: Path) -> None:
    """Live windows are short-lived, so a fast disk is the right place. Other files there stay."""
    data, disk = tmp_path / "data", tmp_path / "disk"
    shutil.copytree(tiny_dataset, data)
    disk.mkdir()
    (disk / "precious").write_text("mine")
    (data / "live").symlink_to(disk)
    tiny = {"layers": 1, "width": 8, "heads": 1, "batch_tokens": 64, "steps": 2, "live": True, "live_workers": 1}
    list(train_steps(data, tmp_path / "run", tiny))
    assert sorted(path.name for path in disk.iterdir()) == [".lock", "precious"]
    assert problems(data) == []
