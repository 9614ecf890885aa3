"""`verify --repair`: damaged and missing windows are written again byte for byte from the histories; other damage is
listed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edited_manifests import edit_manifest, set_shard_checksums
from typer.testing import CliRunner
from whole_builds import digests, undisturbed

import streamfeat_cli.commands
from streamfeat import WindowStream
from streamfeat.builder.repair import Repaired, repair_steps
from streamfeat.errors import DamagedError, LockedError
from streamfeat.progress import Progress
from streamfeat.store.locks import locked
from streamfeat.store.verify import Problem, verify_steps

SHARD = "windows.zarr/training/1/time/c/2/0"


@pytest.fixture(scope="module", params=["users:0.05", "last:2"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repairs")
    undisturbed(folder, split=request.param)
    return folder / "whole"


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "data")


def repaired_files(root: Path) -> set[str]:
    return {step.file for step in repair_steps(root) if isinstance(step, Repaired)}


def append(file: Path) -> None:
    with file.open("ab") as handle:
        handle.write(b"x")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)


def swap(root: Path) -> None:
    first, second = root / SHARD, root / SHARD.replace("/2/0", "/1/0")
    aside = root / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


DAMAGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "nothing": (lambda root: None, set()),
    "flipped bit": (lambda root: flip(root / SHARD), {SHARD}),
    "longer file": (lambda root: append(root / SHARD), {SHARD}),
    "lost shard": (lambda root: (root / SHARD).unlink(), {SHARD}),
    "swapped shards": (swap, {SHARD, SHARD.replace("/2/0", "/1/0")}),
    "lost validation": (
        lambda root: (root / "windows.zarr/validation/0/item/c/0/0").unlink(),
        {"windows.zarr/validation/0/item/c/0/0"},
    ),
    "edited metadata": (
        lambda root: append(root / "windows.zarr/training/0/rating/zarr.json"),
        {"windows.zarr/training/0/rating/zarr.json"},
    ),
    "link in place of a shard": (lambda root: link(root / SHARD), {SHARD}),
    "edited receipt": (lambda root: (root / "receipts/tables.json").write_text("{}"), {"receipts/tables.json"}),
}


def link(file: Path) -> None:
    elsewhere = file.parents[7] / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


@pytest.mark.parametrize("name", DAMAGES)
def test_just_the_damaged_files_come_back_byte_for_byte(built: Path, dataset: Path, name: str) -> None:
    """No other file is written (its inode stays), and no temporary folder stays."""
    damage, files = DAMAGES[name]
    damage(dataset)
    inodes = {path: path.stat().st_ino for path in dataset.rglob("*") if path.is_file()}
    assert repaired_files(dataset) == files
    assert digests(dataset) == digests(built)
    changed = {str(path.relative_to(dataset)) for path, inode in inodes.items() if path.stat().st_ino != inode}
    assert changed <= files
    assert {path.name for path in dataset.iterdir()} == {path.name for path in built.iterdir()}
    assert all(isinstance(step, Progress) for step in repair_steps(dataset))


@pytest.mark.slow
def test_all_windows_come_back(built: Path, dataset: Path) -> None:
    """The whole store is missing, its metadata too."""
    shutil.rmtree(dataset / "windows.zarr")
    repaired_files(dataset)
    assert digests(dataset) == digests(built)
    with WindowStream(dataset, objective="causal", batch_windows=8) as stream:
        assert sum(1 for _ in stream) == stream.steps_per_epoch


def test_a_dataset_without_checksums_of_shards_is_repaired_too(dataset: Path) -> None:
    """Records of earlier versions had no `crc32c`."""
    set_shard_checksums(dataset, None)
    whole = digests(dataset)
    flip(dataset / SHARD)
    assert repaired_files(dataset) == {SHARD}
    assert digests(dataset) == whole


@pytest.mark.parametrize(
    "file", ["histories.zarr/time/c/0", "users.parquet", "items.parquet", "histories.zarr/zarr.json"]
)
def test_damage_that_no_repair_can_mend_is_named_with_the_remedy(built: Path, dataset: Path, file: str) -> None:
    """Windows that depend on other damaged files stay as they are, others are repaired. No file gets worse."""
    flip(dataset / file)
    (dataset / SHARD).unlink()
    with pytest.raises(DamagedError, match="restore these files, or build again with --overwrite") as caught:
        repaired_files(dataset)
    assert file in str(caught.value)
    needs_histories = file != "items.parquet"
    assert (SHARD in str(caught.value)) == needs_histories
    assert (dataset / SHARD).exists() != needs_histories
    shutil.copy(built / file, dataset / file)
    repaired_files(dataset)
    assert digests(dataset) == digests(built)


def test_other_bytes_than_were_committed_are_never_put_in_place(dataset: Path) -> None:
    """If the histories do not give the bytes of the manifest, the file stays as it is."""

    def forge(values: dict) -> None:
        for receipt in values["receipts"]:
            for file in receipt["files"]:
                if file["path"] == SHARD:
                    file["sha256"] = "0" * 64

    edit_manifest(dataset, forge)
    before = (dataset / SHARD).read_bytes()
    with pytest.raises(DamagedError, match=SHARD):
        repaired_files(dataset)
    assert (dataset / SHARD).read_bytes() == before


def test_a_link_on_the_way_is_left_to_the_user(dataset: Path, tmp_path: Path) -> None:
    """Nothing is written through it. After the user removes it, the repair succeeds."""
    array = dataset / "windows.zarr/training/0/user"
    array.rename(tmp_path / "elsewhere")
    outside = digests(tmp_path / "elsewhere")
    array.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match="remove symbolic links"):
        repaired_files(dataset)
    assert digests(tmp_path / "elsewhere") == outside
    array.unlink()
    assert len(repaired_files(dataset)) == len(outside)


@pytest.mark.parametrize("what", ["a link", "a file"])
def test_a_temporary_folder_that_is_none_of_ours_is_refused_before_anything_is_touched(
    dataset: Path, tmp_path: Path, what: str
) -> None:
    """Files behind a link belong to others, even if they have the names of our temporary files."""
    outside = tmp_path / "outside"
    (outside / "repair").mkdir(parents=True)
    (outside / "repair/precious").write_text("mine")
    (outside / "segments.arrays").write_text("mine")
    (dataset / SHARD).unlink()
    if what == "a link":
        (dataset / "tmp").symlink_to(outside)
    else:
        (dataset / "tmp").write_text("mine")
    before = digests(tmp_path)
    with pytest.raises(DamagedError, match=r"data/tmp: is .*; remove it and run the same command again"):
        repaired_files(dataset)
    assert digests(tmp_path) == before
    (dataset / "tmp").unlink()
    assert repaired_files(dataset) == {SHARD}


def test_a_link_among_the_temporary_files_is_removed_itself(built: Path, dataset: Path, tmp_path: Path) -> None:
    """The files behind it stay. A killed repair leaves folders of these names, which the next one removes."""
    outside = tmp_path / "outside"
    (outside / "windows.zarr").mkdir(parents=True)
    (outside / "windows.zarr/precious").write_text("mine")
    (dataset / "tmp").mkdir()
    (dataset / "tmp/repair").symlink_to(outside)
    (dataset / "tmp/segments.arrays").symlink_to(outside / "windows.zarr/precious")
    (dataset / SHARD).unlink()
    assert repaired_files(dataset) == {SHARD}
    assert list(digests(outside)) == ["windows.zarr/precious"]
    assert (outside / "windows.zarr/precious").read_text() == "mine"
    assert digests(dataset) == digests(built)


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2))])
def test_a_killed_repair_is_finished_by_the_next(built: Path, dataset: Path, tmp_path: Path, number: int) -> None:
    """SIGKILL after a number of three files is written: no file is ever worse than before."""
    lost = sorted(path for path in (dataset / "windows.zarr/training/0").glob("*/c/1/0"))[:3]
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from streamfeat.builder import repair\n"
        "write, left = repair.write_whole, int(sys.argv[2])\n"
        "def killed(*args):\n"
        "    global left\n"
        "    if not left:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left -= 1\n"
        "    return write(*args)\n"
        "repair.write_whole = killed\n"
        "list(repair.repair_steps(sys.argv[1]))\n"
    )
    for path in lost:
        path.unlink()
    done = subprocess.run([sys.executable, script, str(dataset), str(number)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    still = {str(path.relative_to(dataset)) for path in lost if not path.exists()}
    assert len(still) == 3 - number
    assert {p.kind for p in verify_steps(dataset) if isinstance(p, Problem)} <= {"missing", "foreign"}
    assert repaired_files(dataset) == still
    assert digests(dataset) == digests(built)


def test_a_repair_waits_for_nobody(dataset: Path) -> None:
    """While a build holds the folder, a repair ends at once with an error."""
    with locked(dataset, "builds"), pytest.raises(LockedError, match=r"process \d+ on .*wait for it or stop it"):
        repaired_files(dataset)


def test_the_command_repairs_says_what_it_did_and_exits_0_or_4(dataset: Path) -> None:
    """`verify` finds damage, `verify --repair` repairs it, `verify` then finds nothing. Damaged histories are listed
    and give exit code 4."""
    (dataset / SHARD).unlink()

    def run(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(streamfeat_cli.commands.app, ["verify", str(dataset), *words])
        if isinstance(done.exception, DamagedError):
            return done.exception.exit_code, done.stdout, str(done.exception)
        return done.exit_code, done.stdout, done.stderr

    assert run()[0] == 4
    code, stdout, stderr = run("--repair", "--json")
    assert code == 0
    said = json.loads(stdout)
    assert said["sound"]
    assert said["repaired"] == [SHARD]
    assert [problem["file"] for problem in said["problems"]] == [SHARD]
    assert f"repaired: {SHARD}" in stderr
    assert run()[:2] == (0, f"{dataset}: sound\n")
    assert run("--repair")[:2] == (0, f"{dataset}: sound, nothing to repair\n")
    flip(dataset / "histories.zarr/item/c/0")
    code, _, stderr = run("--repair")
    assert code == 4
    assert "histories.zarr/item/c/0" in stderr
