"""Ownership of OUT: folders of others are not changed, damaged files are not trusted, two builds never write at the
same time."""

import json
import os
import shutil
from pathlib import Path

import pytest
from invented_events import write_csv
from reference_build import Event
from whole_builds import digests

from streamfeat import BuildConfig, build_steps
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError, DamagedError, FormatVersionError, LockedError
from streamfeat.schema import FORMAT_VERSION


@pytest.fixture
def events(tmp_path: Path, tiny_events: list[Event]) -> str:
    return str(write_csv(tmp_path / "e.csv", tiny_events))


def overwrite(events: str, out: Path) -> None:
    for _ in build_steps([events], out, BuildConfig(window_len=64), overwrite=True):
        pass


def leave_unfinished(events: list[str], out: Path, stage: str = "windows") -> None:
    """A build of the default configuration that is stopped when this stage begins."""
    steps = build_steps(events, out, BuildConfig())
    next(step for step in steps if getattr(step, "stage", "") == stage)
    steps.close()


def test_overwrite_leaves_what_a_build_did_not_make(tmp_path: Path, events: str) -> None:
    """Notes and runs in the folder stay. A folder with a foreign dataset.json is an error."""
    out = tmp_path / "out"
    build_shards([events], out)
    (out / "notes.txt").write_text("mine")
    overwrite(events, out)
    assert (out / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "dataset.json").write_text('{"my": "data"}')
    with pytest.raises(ConfigError, match="does not hold a dataset"):
        overwrite(events, foreign)
    assert (foreign / "dataset.json").read_text() == '{"my": "data"}'


def test_event_files_inside_the_folder_are_never_overwritten(tmp_path: Path, events: str) -> None:
    """Otherwise the input would be deleted before it is read."""
    out = tmp_path / "out"
    build_shards([events], out)
    inside = out / "more.csv"
    inside.write_bytes(Path(events).read_bytes())
    with pytest.raises(ConfigError, match="is inside"):
        overwrite(str(inside), out)
    assert inside.exists()


def test_a_rerun_notices_a_lost_shard(tmp_path: Path, events: str) -> None:
    """The dataset is not up to date, and the message says how to repair it."""
    out = tmp_path / "out"
    build_shards([events], out)
    (out / "windows.zarr/training/0/item/c/0/0").unlink()
    with pytest.raises(DamagedError, match=r"window-training-00000-00000.*--overwrite"):
        build_shards([events], out)


def test_a_second_build_into_one_folder_is_refused(tmp_path: Path, events: str) -> None:
    """The error names the first build. After that one has ended, the folder is free."""
    out = tmp_path / "out"
    first = build_steps([events], out, BuildConfig())
    next(step for step in first if type(step).__name__ == "Progress")
    with pytest.raises(LockedError, match=r"process \d+ on .* builds here"):
        build_shards([events], out)
    first.close()
    assert build_shards([events], out).num_users == 50


@pytest.mark.parametrize("name", ["tmp", "receipts", "windows.zarr/training"])
def test_no_build_writes_or_removes_through_a_link(tmp_path: Path, events: str, name: str) -> None:
    """With a link inside, an unfinished and a finished build are errors; `--overwrite` removes the link itself."""
    built = tmp_path / "built"
    leave_unfinished([events], built)
    for state in ("unfinished", "finished"):
        if state == "finished":
            build_shards([events], built)
        out, outside = tmp_path / state, tmp_path / f"outside-{state}"
        shutil.copytree(built, out)
        (out / name).mkdir(exist_ok=True)
        shutil.move(out / name, outside)
        (out / name).symlink_to(outside)
        (outside / "precious.json").write_text("mine")
        before = digests(outside)
        with pytest.raises(DamagedError, match=rf"{state}/{name}: is a symbolic link.*remove it"):
            build_shards([events], out)
        assert digests(outside) == before
        overwrite(events, out)
        assert digests(outside) == before
        assert not (out / name).is_symlink()
    overwrite(events, built)
    assert digests(tmp_path / "unfinished") == digests(tmp_path / "finished") == digests(built)


def test_a_link_to_an_empty_folder_makes_no_folder_of_ours(tmp_path: Path, events: str) -> None:
    """Only at places where links are allowed. No file is written through this one."""
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "out/tmp").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="is not empty and does not hold a dataset"):
        build_shards([events], tmp_path / "out")
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_marker_alone_makes_a_folder_ours(tmp_path: Path, events: str) -> None:
    """It is written first, so even if other files of a build were removed, the rest belongs to the build."""
    out = tmp_path / "out"
    leave_unfinished([events], out)
    for name in ("tmp", "receipts"):
        shutil.rmtree(out / name)
    build_shards([events], out)
    assert json.loads((out / ".streamfeat").read_text()) == {"holds": "dataset", "emptying": False}
    (out / "dataset.json").unlink()
    overwrite(events, out)
    assert (out / "dataset.json").exists()


@pytest.mark.parametrize("kind", ["nothing", "another's", "link"])
def test_only_our_own_marker_makes_a_folder_ours(tmp_path: Path, events: str, kind: str) -> None:
    """A file of this name with other content does not, nor a link to a marker in another folder."""
    build_shards([events], tmp_path / "data")
    out = tmp_path / "out"
    (out / "receipts").mkdir(parents=True)
    (out / "receipts/split-00000.json").write_text("mine")
    if kind == "another's":
        (out / ".streamfeat").write_text('{"holds": "photos"}')
    elif kind == "link":
        (out / ".streamfeat").symlink_to(tmp_path / "data/.streamfeat")
    before = digests(tmp_path)
    with pytest.raises(ConfigError, match="is not empty and does not hold a dataset"):
        overwrite(events, out)
    assert digests(tmp_path) == before


def test_a_dataset_without_a_marker_is_ours_by_its_manifest(tmp_path: Path, events: str) -> None:
    """Earlier versions wrote no marker. An unfinished build of theirs is known by its plan."""
    out = tmp_path / "out"
    leave_unfinished([events], out)
    (out / ".streamfeat").unlink()
    build_shards([events], out)
    (out / ".streamfeat").unlink()
    overwrite(events, out)
    assert (out / ".streamfeat").exists()


def test_overwrite_removes_what_a_killed_repair_left(tmp_path: Path, events: str) -> None:
    """A folder in `tmp/`, with some windows in it."""
    out = tmp_path / "out"
    build_shards([events], out)
    shutil.copytree(out / "windows.zarr", out / "tmp/repair/windows.zarr")
    overwrite(events, out)
    assert not (out / "tmp").exists()
    assert (out / "dataset.json").exists()


@pytest.mark.parametrize(
    "text",
    ['{"config": []}', '{"config": null}', '{"sources": [1]}', '{"sources": 5}', '{"sources": [[]]}', "[]", "{", "\xff",
     '{"format_version": 1, "config": {}, "sources": [["e.csv", 1]]}', '{"a": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_a_damaged_plan_is_an_error_with_the_remedy(tmp_path: Path, events: str, text: str) -> None:
    """For any content of `tmp/plan.json`. The remedy works."""
    out = tmp_path / "out"
    (out / "tmp").mkdir(parents=True)
    (out / "tmp/plan.json").write_text(text, "latin-1")
    with pytest.raises(DamagedError, match=r"(?s)tmp/plan\.json: .*; build with --overwrite$"):
        build_shards([events], out)
    assert (out / "tmp/plan.json").read_text("latin-1") == text
    plan = next(step for step in build_steps([events], out, BuildConfig(), overwrite=True) if hasattr(step, "stage"))
    assert plan.stage == "reading"


def test_an_unfinished_build_of_an_older_format_is_refused_with_the_remedy(tmp_path: Path, events: str) -> None:
    """Its receipts have other fields. Nothing is changed without `--overwrite`."""
    out = tmp_path / "out"
    leave_unfinished([events], out, "reading")
    plan = out / "tmp/plan.json"
    plan.write_text(
        plan.read_text("utf-8").replace(f'"format_version":{FORMAT_VERSION}', '"format_version":1'), "utf-8"
    )
    before = digests(out)
    with pytest.raises(FormatVersionError, match=r"unfinished build of format 1, .*build with --overwrite$") as caught:
        build_shards([events], out)
    assert caught.value.exit_code == 7
    assert digests(out) == before
    overwrite(events, out)
    assert (out / "dataset.json").exists()


def test_what_differs_from_an_unfinished_build_is_named(tmp_path: Path, events: str) -> None:
    """Options, and event files by name. Of two files with one name, only the changed one."""
    (tmp_path / "b").mkdir()
    other = str(shutil.copy(events, tmp_path / "b/e.csv"))
    more = str(shutil.copy(events, tmp_path / "more.csv"))
    out = tmp_path / "out"
    leave_unfinished([events, other], out, "reading")
    size = Path(events).stat().st_size

    def refused(*files: str, **options: int) -> list[str]:
        with pytest.raises(ConfigError, match="holds an unfinished build of another configuration") as caught:
            build_shards(files, out, **options)
        return str(caught.value).split("\n")[1:-1]

    assert refused(events, other, seed=3) == ["  seed: there 20221221, now 3"]
    assert refused(events) == ["  e.csv: was given there, but not now"]
    assert refused(events, other, more) == ["  more.csv: was not given there"]
    assert refused(events, more) == ["  e.csv: was given there, but not now", "  more.csv: was not given there"]
    os.utime(other, ns=(1, 1))
    assert refused(events, other) == [
        f"  e.csv: has changed (there {size} bytes, now {size}, or another modification time)"
    ]
    with Path(events).open("a") as file:
        file.write("\n")
    assert len(refused(events, other)) == 2


def test_event_files_in_another_order_are_refused(tmp_path: Path, events: str) -> None:
    """Events with equal times keep the order of the input, so the order changes bytes."""
    (tmp_path / "b").mkdir()
    other = str(tmp_path / "b/e.csv")
    Path(other).write_text(Path(events).read_text() + "\n")
    leave_unfinished([events, other], tmp_path / "out", "reading")
    with pytest.raises(ConfigError, match=r"configuration:\n  sources: given in another order\n"):
        build_shards([other, events], tmp_path / "out")
