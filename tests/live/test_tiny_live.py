"""Datasets so small that there is almost nothing to shuffle."""

from pathlib import Path

import pytest
from invented_events import invent_events, write_csv
from live_runs import assert_same, read_built, read_live, started

from streamfeat import load_manifest
from streamfeat.builder.coordinator import build_shards


@pytest.mark.parametrize(("window_len", "producers", "batch_windows"), [(1024, 3, 8), (1024, 1, 1), (16, 3, 24)])
def test_few_users_and_few_windows_train_live(
    tmp_path: Path, window_len: int, producers: int, batch_windows: int
) -> None:
    """One window, fewer windows than producers and lanes; or 10 users with short windows."""
    events = str(write_csv(tmp_path / "e.csv", invent_events(seed=1, num_users=10, media={"a": 9}, mean_events=6)))
    for name, packings in (("built", 4), ("live", 0)):
        build_shards(
            [events], tmp_path / name, window_len=window_len, shard_windows=4, chunk_windows=2, packings=packings
        )
    assert window_len < 1024 or load_manifest(tmp_path / "live").splits["training"].windows == 1
    root = tmp_path / "live"
    with started(root, epochs=4, producers=producers, batch_windows=batch_windows) as folder:
        live = read_live(root, folder, epochs=4, producers=producers, batch_windows=batch_windows)
    assert_same(live[0], read_built(tmp_path / "built", epochs=4, batch_windows=batch_windows))
