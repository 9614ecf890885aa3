"""A build counts planned events, and says what to do about words that mean no status."""

import pytest

from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import DataError
from streamfeat_cli.inspect import dataset_summary


def test_the_error_of_an_unknown_word_has_a_remedy_that_works(tmp_path):
    """It lists known words, and what to type."""
    events = tmp_path / "events.csv"
    words = ["read", "shipped", "packed", "planned"] * 5
    rows = [f"u{i % 3},i{i % 7},{1_500_000_000 + i},{word}" for i, word in enumerate(words)]
    events.write_text("\n".join(["user,item,timestamp,status", *rows]) + "\n", "utf-8")
    with pytest.raises(
        DataError, match=r"--status 'shipped=completed,packed=completed'.*known are planned: planned, "
    ) as caught:
        build_shards([str(events)], tmp_path / "data")
    assert "--columns status=" in str(caught.value)
    manifest = build_shards(
        [str(events)], tmp_path / "other", status="shipped=completed,packed=completed", window_len=8
    )
    assert manifest.cleaning["planned"] == 5
    assert dataset_summary(manifest, tmp_path)["planned_events"] == 5
