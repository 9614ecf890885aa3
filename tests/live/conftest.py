"""One dataset, with three packings built beforehand and with none."""

import shutil
from pathlib import Path

import pytest
from invented_events import invent_events, write_csv

OPTIONS = {"window_len": 16, "split": "users:0.2", "chunk_windows": 2, "shard_windows": 8}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100 training windows in 13 shards of 8, in three packings."""
    from streamfeat.builder.coordinator import build_shards

    folder = tmp_path_factory.mktemp("live")
    events = invent_events(seed=9, num_users=150, media={"anime": 30, "manga": 20}, mean_events=12)
    build_shards([str(write_csv(folder / "events.csv", events))], folder / "built", packings=3, **OPTIONS)
    return folder / "built"


@pytest.fixture(scope="session")
def without_packings(built: Path) -> Path:
    """The same dataset as `build-shards --live` leaves it. Tests only read it."""
    from streamfeat.builder.coordinator import build_shards

    folder = built.parent / "live"
    build_shards([str(built.parent / "events.csv")], folder, packings=0, **OPTIONS)
    return folder


@pytest.fixture
def root(without_packings: Path, tmp_path: Path) -> Path:
    """A copy for a test of its own."""
    return shutil.copytree(without_packings, tmp_path / "data")
