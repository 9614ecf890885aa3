"""A dataset without any target is refused before a step, and an evaluation that followed its advice gets another."""

from pathlib import Path

import pytest

from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import DataError
from train.training.loop import train_steps


def test_a_dataset_of_planned_events_alone_is_refused_with_the_reason(tmp_path: Path) -> None:
    """No run is made of it."""
    path = tmp_path / "e.csv"
    rows = "".join(f"u{i % 9},i{i % 7},{1_500_000_000 + i},planned\n" for i in range(60))
    path.write_text("user,item,timestamp,status\n" + rows)
    build_shards([str(path)], tmp_path / "data", window_len=8)
    with pytest.raises(DataError, match=r"none of its training events has an item target.*--columns status=NAME"):
        list(train_steps(tmp_path / "data", tmp_path / "run", {"steps": 1}))
    assert not (tmp_path / "run").exists()
