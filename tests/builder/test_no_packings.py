"""A dataset for live training: all but the training packings; and what a build may do while a run is alive."""

import hashlib
from pathlib import Path

import pytest
from invented_events import write_csv
from reference_build import Event

from streamfeat import BuildConfig, WindowStream, build_steps
from streamfeat.builder.coordinator import build_shards
from streamfeat.config import StreamConfig
from streamfeat.errors import ConfigError, LockedError
from streamfeat.live.folder import start_run
from streamfeat.store.verify import Problem, verify_steps
from streamfeat.stream.one_window import look_at_window

RUN = {"seed": 3, "batch_windows": 8, "world_size": 1, "start": 0, "stop": 9, "disk_bytes": 10**9, "producers": 1}


@pytest.fixture
def events(tmp_path: Path, tiny_events: list[Event]) -> str:
    return str(write_csv(tmp_path / "e.csv", tiny_events))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_dataset_without_packings_is_sound_and_a_later_build_adds_them(tmp_path: Path, events: str) -> None:
    """It has validation windows. In the end the bytes equal those of a build that made the packings at once."""
    out = tmp_path / "out"
    manifest = build_shards([events], out, window_len=32, packings=0, split="users:0.2")
    assert manifest.splits["training"].packings == 0
    assert manifest.splits["training"].windows > 0
    assert not [found for found in verify_steps(out) if isinstance(found, Problem)]
    assert len(list(WindowStream(out, objective="causal", batch_windows=8, split="validation"))) > 0
    assert build_shards([events], out, window_len=32, packings=0, split="users:0.2") == manifest
    build_shards([events], out, window_len=32, split="users:0.2")
    build_shards([events], tmp_path / "at-once", window_len=32, split="users:0.2")
    assert digests(out) == digests(tmp_path / "at-once")
    kept = build_shards([events], out, window_len=32, packings=0, split="users:0.2")
    assert kept.splits["training"].packings == 1


def test_reading_packings_that_were_not_built_is_refused_with_both_remedies(tmp_path: Path, events: str) -> None:
    """A stream and a look at a window; validation can be looked at."""
    out = tmp_path / "out"
    build_shards([events], out, window_len=32, packings=0, split="users:0.2")
    with pytest.raises(ConfigError, match=r"train with --live, or build packings"):
        WindowStream(out, objective="causal", batch_windows=8)
    with pytest.raises(ConfigError, match=r"train with --live, or build packings"):
        look_at_window(out, 0, StreamConfig(objective="causal", batch_windows=1))
    assert look_at_window(out, 0, StreamConfig(objective="causal", batch_windows=1, split="validation"))


def test_a_build_leaves_live_runs_alone_and_overwrites_none(tmp_path: Path, events: str) -> None:
    """`verify` finds no foreign files, temporary files of producers stay, and --overwrite is an error until the run
    has ended."""
    out = tmp_path / "out"
    manifest = build_shards([events], out, window_len=32, packings=0)

    def overwrite() -> None:
        for _ in build_steps([events], out, BuildConfig(window_len=64), overwrite=True):
            pass

    with start_run(out, manifest, **RUN) as folder:  # type: ignore[arg-type]
        left = folder / f".0.1.{'0' * 32}.tmp"
        left.write_bytes(b"half a shard")
        assert not [found for found in verify_steps(out) if isinstance(found, Problem)]
        build_shards([events], out, window_len=32)
        assert left.exists()
        with pytest.raises(LockedError, match=f"live run {folder.name} trains here"):
            overwrite()
        before = folder.with_name("kept")
        folder.rename(before)
        before.rename(folder)
        (folder / ".lock").unlink()  # as if its trainer had been killed: nobody is seen to hold it
        overwrite()
        assert not folder.exists()
