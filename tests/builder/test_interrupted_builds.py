"""A build that is really killed is finished by the next run of the same command, byte for byte."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_events import invent_events, write_csv
from processes import assert_session_ends
from whole_builds import digests, undisturbed

from streamfeat import BuildConfig, build_steps
from streamfeat.builder.coordinator import build_shards

HOUSE = Path(__file__).parents[2]
OPTIONS = {"window_len": 16, "chunk_windows": 1, "shard_windows": 4, "packings": 2}


@pytest.mark.parametrize(
    ("num_receipts", "workers", "split"),
    [
        (9, 2, "users:0.01"),
        *(
            pytest.param(*moment, marks=pytest.mark.slow)
            for moment in (
                (1, 1, "users:0.01"),
                (3, 1, "users:0.01"),
                (12, 1, "users:0.01"),
                (8, 1, "last:2"),
                (8, 1, "time:0.2"),
            )
        ),
    ],
)
def test_a_killed_build_is_finished_by_the_next_run(
    tmp_path: Path, num_receipts: int, workers: int, split: str
) -> None:
    """SIGKILL of the parent after a number of receipts: no child survives, and no byte differs."""
    events = write_csv(tmp_path / "e.csv", invent_events(seed=4, num_users=120, media={"a": 30}))
    options = {**OPTIONS, "split": split}
    build_shards([str(events)], tmp_path / "whole", **options)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    out = tmp_path / "out"
    command = [sys.executable, HOUSE / "cli.py", "build-shards", events, out, f"--workers={workers}", *words]
    build = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list((out / "receipts").glob("*.json"))) < num_receipts and time.monotonic() < deadline:
        if build.poll() is not None:
            break
    build.kill()
    build.wait()
    if (out / "dataset.json").exists():
        pytest.skip("the build finished before it could be killed")
    assert_session_ends(build.pid)
    build_shards([str(events)], out, **options)
    assert digests(out) == digests(tmp_path / "whole")


Unfinished = tuple[str, dict[str, Any], dict[str, str], Path]


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Unfinished:
    """Events, options, digests of their dataset, and a build of it without the last windows."""
    folder = tmp_path_factory.mktemp("unfinished")
    events, options, whole = undisturbed(folder, min_item_events=2)
    out = folder / "out"
    with contextlib.closing(build_steps([events], out, BuildConfig(**options))) as steps:
        next(step for step in steps if getattr(step, "stage", "") == "windows" and step.done > step.total / 2)
    return events, options, whole, out


def committed(out: Path) -> dict[str, list[str]]:
    """Files of each task that has a receipt."""
    receipts = [json.loads(path.read_text()) for path in (out / "receipts").glob("*.json")]
    return {receipt["task"]: [file["path"] for file in receipt["files"]] for receipt in receipts}


def test_what_is_committed_is_not_done_again(tmp_path: Path, unfinished: Unfinished) -> None:
    """No file of a task is written twice: splits, partitions, histories and existing windows."""
    events, options, whole, source = unfinished
    out = shutil.copytree(source, tmp_path / "out")
    tasks = {
        task: files for task, files in committed(out).items() if not task.startswith(("offsets", "tables", "meta"))
    }
    assert {task.partition("-")[0] for task in tasks} >= {"split", "partition", "history", "window"}
    inodes = {file: (out / file).stat().st_ino for files in tasks.values() for file in files}
    with contextlib.closing(build_steps([events], out, BuildConfig(**options))) as steps:
        next(step for step in steps if getattr(step, "stage", "") == "windows" and step.done == step.total)
        assert {file: (out / file).stat().st_ino for file in inodes} == inodes
    build_shards([events], out, **options)
    assert digests(out) == whole


KINDS = ("split", "partition", "filtered", "history", "window")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_that_flips_while_a_build_rests_is_noticed(tmp_path: Path, unfinished: Unfinished, kind: str) -> None:
    """In any file of a task, without a change of size: the task is done again, with the same bytes."""
    events, options, whole, source = unfinished
    out = shutil.copytree(source, tmp_path / "out")
    for file in next(files for task, files in sorted(committed(out).items()) if task.startswith(kind)):
        content = bytearray((out / file).read_bytes())
        content[len(content) // 2] ^= 1
        (out / file).write_bytes(content)
    forget_later(out, kind)
    build_shards([events], out, **options)
    assert digests(out) == whole


def forget_later(out: Path, kind: str) -> None:
    """Take the receipts of the stages behind that of `kind`: they will read what its tasks made."""
    for later in KINDS[KINDS.index(kind) + 1 :]:
        for path in (out / "receipts").glob(f"{later}-*.json"):
            path.unlink()


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """An edit of a receipt: the last of `path` under the keys before it."""

    def edit(receipt: dict[str, Any]) -> None:
        place: Any = receipt
        for key in path[:-2]:
            place = place[key]
        place[path[-2]] = path[-1]

    return edit


def many_events(receipt: dict[str, Any]) -> None:
    receipt["rows"] = receipt["facts"]["events"] = 10**15


EDITS: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "no facts of a split": ("split-00000", put("facts", {})),
    "no facts of a partition": ("partition-00000", put("facts", {})),
    "no facts of a history": ("history-00000", put("facts", {})),
    "no files of a split": ("split-00000", put("files", [])),
    "no files of a partition": ("partition-00000", put("files", [])),
    "no facts of a filtered partition": ("filtered-00000", put("facts", {})),
    "no files of a filtered partition": ("filtered-00000", put("files", [])),
    "no files of a history": ("history-00000", put("files", [])),
    "no files of a window": ("window-training-00000-00000", put("files", [])),
    "a file less": ("window-training-00000-00000", lambda receipt: receipt["files"].pop()),
    "the files of another": ("filtered-00000", put("files", 0, "path", "tmp/items.arrays")),
    "blocks without end": ("split-00000", put("facts", "num_blocks", 10**15)),
    "events without end": ("filtered-00000", many_events),
    "a user more": ("filtered-00000", lambda receipt: put("facts", "users", receipt["facts"]["users"] + 1)(receipt)),
    "a tie more": ("filtered-00000", lambda receipt: put("facts", "tied", receipt["facts"]["tied"] + 1)(receipt)),
    "facts of another kind": ("filtered-00000", put("facts", "time_range", "soon")),
    "a count that is none": ("split-00000", put("facts", "counts", "rows", None)),
    "another sum of ratings": ("history-00000", put("facts", "ratings", 1, 0, 5.0)),
    "facts of a window": ("window-training-00000-00000", put("facts", {"a": 1})),
    "more facts": ("history-00000", put("facts", "a", 1)),
    "another packing": ("window-training-00000-00000", put("packing", 1)),
    "another split": ("window-training-00000-00000", put("split", "validation")),
    "another shard": ("window-training-00000-00000", put("shard", 1)),
    "other rows": ("window-training-00000-00000", put("rows", 1)),
    "other rows of a split": ("split-00000", put("rows", 1)),
    "another kind": ("history-00000", put("kind", "tables")),
    "another crc32c": ("window-training-00000-00000", put("files", 0, "crc32c", "00000000")),
    "no crc32c": ("history-00000", put("files", 0, "crc32c", "")),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_receipt_that_says_what_cannot_be_counts_for_nothing(
    tmp_path: Path, unfinished: Unfinished, name: str
) -> None:
    """Even if every file of it is right, the task is done again, with the same bytes."""
    events, options, whole, source = unfinished
    out = shutil.copytree(source, tmp_path / "out")
    task, edit = EDITS[name]
    file = out / f"receipts/{task}.json"
    receipt = json.loads(file.read_text())
    edit(receipt)
    file.write_text(json.dumps(receipt))
    forget_later(out, task.partition("-")[0])
    build_shards([events], out, **options)
    assert digests(out) == whole


KILLED = """
import os, shutil, signal, sys
from streamfeat import BuildConfig
from streamfeat.builder import coordinator
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "emptying":
    shutil.rmtree = kill
else:
    coordinator.run_window = kill
list(coordinator.build_steps([sys.argv[1]], sys.argv[2], BuildConfig(window_len=64), overwrite=True))
"""


def kill_an_overwrite(folder: Path, moment: str) -> tuple[list[str], Path]:
    """A dataset that is to be replaced by one with windows of 64 tokens; the events of both."""
    events = str(write_csv(folder / "e.csv", invent_events(seed=4, num_users=40, media={"a": 30})))
    build_shards([events], folder / "out", window_len=32, packings=2)
    (folder / "killed.py").write_text(KILLED)
    command = [sys.executable, folder / "killed.py", events, folder / "out", moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    build_shards([events], folder / "whole", window_len=64)
    return [events], folder / "out"


@pytest.mark.parametrize("overwrite", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_overwrite_that_was_killed_while_it_emptied_the_folder_empties_it_to_the_end(
    tmp_path: Path, overwrite: bool
) -> None:
    """No old file stays in the new dataset, with the same command and without `--overwrite`."""
    events, out = kill_an_overwrite(tmp_path, "emptying")
    assert (out / "histories.zarr").exists()
    assert not (out / "dataset.json").exists()
    list(build_steps(events, out, BuildConfig(window_len=64), overwrite=overwrite))
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.slow
def test_an_overwrite_that_was_killed_while_it_built_goes_on(tmp_path: Path) -> None:
    """The same command keeps the tasks that the killed one committed. A finished dataset is built again."""
    events, out = kill_an_overwrite(tmp_path, "building")
    inodes = {path: path.stat().st_ino for path in (out / "histories.zarr").glob("*/c/0")}
    assert len(inodes) >= 5
    del inodes[out / "histories.zarr/offsets/c/0"], inodes[out / "histories.zarr/partition_offsets/c/0"]
    with contextlib.closing(build_steps(events, out, BuildConfig(window_len=64), overwrite=True)) as steps:
        next(step for step in steps if getattr(step, "stage", "") == "windows")
        assert {path: path.stat().st_ino for path in inodes} == inodes
        list(steps)
    assert digests(out) == digests(tmp_path / "whole")
    with contextlib.closing(build_steps(events, out, BuildConfig(window_len=64), overwrite=True)) as steps:
        next(step for step in steps if getattr(step, "stage", "") == "reading")
        assert not (out / "histories.zarr").exists()
