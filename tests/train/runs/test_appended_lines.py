"""metrics.jsonl and bad-steps.jsonl: whole lines or none, whatever the disk refuses and whatever has their names."""

import contextlib
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from streamfeat.errors import DamagedError, StorageError
from train.runs.folder import BAD_STEPS
from train.runs.metrics import METRICS, MetricsLog, read_metrics
from train.training.bad_steps import append_bad_step
from train.training.update import Update

Append = Callable[..., None]


def append_metrics(run: Path, *steps: int) -> None:
    with MetricsLog(run) as log:
        for step in steps:
            log.append("train", step, {"loss": 1 / 3})


def append_bad_steps(run: Path, *steps: int) -> None:
    update = Update({"anime_watch": None}, None, 0.1, None, {"anime_watch": "nan"})
    for step in steps:
        append_bad_step(run, update, np.arange(4), {"position": step}, step=step, epoch=0, ranks=2)


FILES = [(METRICS, append_metrics), (BAD_STEPS, append_bad_steps)]


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """As on a disk that is full: a write takes what fits, the next one nothing."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def steps_in(file: Path) -> list[int]:
    *lines, rest = file.read_bytes().split(b"\n")
    assert rest == b""
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.parametrize(("name", "append"), FILES)
def test_a_full_disk_is_an_error_with_the_remedy_and_leaves_whole_lines(
    tmp_path: Path, name: str, append: Append
) -> None:
    """Full at every byte of the third line: the error is the disk's, and two whole lines stay."""
    append(tmp_path, 1, 2)
    two = (tmp_path / name).stat().st_size
    for room in range(two // 2):
        with (
            files_of_at_most(two + room),
            pytest.raises(StorageError, match=rf"{name}: File too large; .*raise `ulimit -f`"),
        ):
            append(tmp_path, 3, 4)
        assert steps_in(tmp_path / name) == [1, 2]
    append(tmp_path, 3)
    assert steps_in(tmp_path / name) == [1, 2, 3]


def test_a_line_refused_by_the_disk_is_not_continued_by_the_next(tmp_path: Path) -> None:
    """The log stays open, and the disk has room again."""
    with MetricsLog(tmp_path) as log:
        with files_of_at_most(10), pytest.raises(StorageError):
            log.append("train", 1, {"loss": 1.5})
        log.append("train", 2, {"loss": 2.5})
    assert [line["step"] for line in read_metrics(tmp_path)] == [2]


@pytest.mark.parametrize(("name", "append"), FILES)
def test_a_line_cut_off_by_a_kill_is_not_continued(tmp_path: Path, name: str, append: Append) -> None:
    """Cut at every byte of the last line."""
    append(tmp_path, 1, 2)
    whole = (tmp_path / name).read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        (tmp_path / name).write_bytes(whole[:length])
        append(tmp_path, 3)
        assert steps_in(tmp_path / name) == [1, 3]


@pytest.mark.parametrize(("name", "append"), FILES)
@pytest.mark.parametrize("kind", ["link", "dead link", "pipe", "folder"])
def test_what_is_no_ordinary_file_is_refused_and_left_as_it_is(
    tmp_path: Path, name: str, append: Append, kind: str
) -> None:
    """No link is followed, by writer or reader; nobody waits at a pipe."""
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "run" / name
    place.parent.mkdir()
    if "link" in kind:
        place.symlink_to(elsewhere)
    if kind == "link":
        elsewhere.write_text("a line\nmine, and without an end")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    with pytest.raises(DamagedError, match=rf"{name}: .*remove it"):
        append(place.parent, 1)
    if name == METRICS:
        with pytest.raises(DamagedError, match=rf"{name}: .*remove it"):
            read_metrics(place.parent)
    if kind == "link":
        assert elsewhere.read_text() == "a line\nmine, and without an end"
    else:
        assert not elsewhere.exists()
