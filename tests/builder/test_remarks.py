"""A build warns about a user who cannot be one, and about a rating that may be none."""

import re

import numpy as np
import pyarrow.parquet as pq

from streamfeat.builder.coordinator import build_steps
from streamfeat.config import BuildConfig
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest


def warnings_of(folder, rows, **config):
    """The warnings of a build of `rows` (user, rating)."""
    path = folder / "events.csv"
    lines = [f"{user},i{i % 40},{1_500_000_000 + 997 * i},{rating}" for i, (user, rating) in enumerate(rows)]
    path.write_text("\n".join(["user,item,timestamp,rating", *lines]) + "\n")
    steps = build_steps([str(path)], folder / "data", BuildConfig(**config), overwrite=True)
    return [step.text for step in steps if isinstance(step, Note) and step.warning]


def test_a_user_with_far_too_many_events_is_named_with_the_share(tmp_path):
    """As `anonymous` in a shop's log; a lively user is no such case."""
    many = [("anonymous", 3)] * 200 + [(f"u{i % 40}", 3) for i in range(200)]
    (warning,) = warnings_of(tmp_path, many)
    assert "user 'anonymous' has 200 of 400 events (50%), 40 times as many as the mean" in warning
    assert warnings_of(tmp_path, [("lively", 3)] * 20 + [(f"u{i % 40}", 3) for i in range(200)]) == []


def test_a_rating_apart_is_told_with_its_share_until_it_is_settled(tmp_path):
    """`--unrated 0` makes it missing and is in the manifest; `--unrated none` says that it is a rating."""
    rows = [(f"u{i % 20}", i % 5) for i in range(200)]
    (warning,) = warnings_of(tmp_path, rows)
    assert "40 of 200 ratings (20.0%) are 0, apart from the others" in warning
    assert "--unrated 0 --overwrite" in warning
    assert warnings_of(tmp_path, rows, unrated="none") == []
    rows = [(f"u{i % 20}", (99, -1, 0, i / 997)[i % 4]) for i in range(2000)]
    (warning,) = warnings_of(tmp_path, rows)
    assert "500 of 2,000 ratings (25.0%) are 99 and 500 of 2,000 ratings (25.0%) are -1, apart from" in warning
    assert warnings_of(tmp_path, rows, unrated=re.search(r"--unrated (\S+)", warning)[1]) == []
    rows = [(f"u{i % 20}", i % 5) for i in range(200)]
    assert warnings_of(tmp_path, rows, unrated="0") == []
    manifest = load_manifest(tmp_path / "data")
    assert manifest.config.unrated == (0.0,)
    assert sum(scale.ratings for scale in manifest.scales) < 160
    assert np.isclose(manifest.scales[0].rating_mean, 2.5, atol=0.1)
    assert pq.read_table(tmp_path / "data/items.parquet").num_rows == 40
