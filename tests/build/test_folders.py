"""Whose folder OUT is: nothing of others is touched, nothing damaged is believed, two builds never meet."""

from pathlib import Path

import pytest
from invented_events import write_csv
from reference_build import Event

from streamfeat import BuildConfig, build_dataset, build_shards
from streamfeat.errors import ConfigError, DamagedError, LockedError


@pytest.fixture
def events(tmp_path: Path, tiny_events: list[Event]) -> str:
    return str(write_csv(tmp_path / "e.csv", tiny_events))


def overwrite(events: str, out: Path) -> None:
    for _ in build_dataset([events], out, BuildConfig(window_len=64), overwrite=True):
        pass


def test_overwrite_leaves_what_a_build_did_not_make(tmp_path: Path, events: str) -> None:
    """Notes and runs that lie in the folder stay; a folder with a foreign dataset.json is refused whole."""
    out = tmp_path / "out"
    build_shards([events], out)
    (out / "notes.txt").write_text("mine")
    overwrite(events, out)
    assert (out / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "dataset.json").write_text('{"my": "data"}')
    with pytest.raises(ConfigError, match="holds no dataset"):
        overwrite(events, foreign)
    assert (foreign / "dataset.json").read_text() == '{"my": "data"}'


def test_event_files_inside_the_folder_are_never_overwritten(tmp_path: Path, events: str) -> None:
    """The input would be gone before it was read."""
    out = tmp_path / "out"
    build_shards([events], out)
    inside = out / "more.csv"
    inside.write_bytes(Path(events).read_bytes())
    with pytest.raises(ConfigError, match="lies inside"):
        overwrite(str(inside), out)
    assert inside.exists()


def test_a_rerun_notices_a_lost_shard(tmp_path: Path, events: str) -> None:
    """It is not up to date, and the message says how to mend it."""
    out = tmp_path / "out"
    build_shards([events], out)
    (out / "windows.zarr/training/0/item/c/0/0").unlink()
    with pytest.raises(DamagedError, match=r"window-training-00000-00000.*--overwrite"):
        build_shards([events], out)


def test_a_second_build_into_one_folder_is_refused(tmp_path: Path, events: str) -> None:
    """It names the first one; when that is gone, the folder is free."""
    out = tmp_path / "out"
    first = build_dataset([events], out, BuildConfig())
    next(step for step in first if type(step).__name__ == "Progress")
    with pytest.raises(LockedError, match=r"process \d+ on .* builds here"):
        build_shards([events], out)
    first.close()
    assert build_shards([events], out).num_users == 50
