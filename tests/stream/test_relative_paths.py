"""A dataset that was opened by a relative path is read after a chdir, too."""

import os
from pathlib import Path

import numpy as np
import pytest

import streamfeat
from streamfeat.stream.stream import WindowStream


def test_a_stream_of_a_relative_path_is_read_after_a_chdir(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards are opened when they are first needed. Otherwise the stream reported damage."""
    monkeypatch.chdir(tiny_dataset.parent)
    with WindowStream(tiny_dataset.name, objective="causal", batch_windows=4, copy=True) as stream:
        opened = streamfeat.open(tiny_dataset.name)
        monkeypatch.chdir(tmp_path)
        found = [batch["item"] for batch in stream]
    with WindowStream(tiny_dataset, objective="causal", batch_windows=4, copy=True) as stream:
        assert np.array_equal(np.concatenate(found), np.concatenate([batch["item"] for batch in stream]))
    assert opened.path == tiny_dataset
    assert len(opened.users) == opened.manifest.num_users
    assert os.path.isabs(opened.path)  # noqa: PTH117
