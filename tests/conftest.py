"""Fixtures that several stations share: invented events and the dataset built from them."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from invented_events import invent_events, write_csv
from reference_build import Event

# The same examples everywhere, and no verdict on how long a loaded machine takes to draw them.
settings.register_profile("alike", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("alike")


@pytest.fixture(scope="session")
def tiny_events() -> list[Event]:
    """About 700 events of 50 users over two media."""
    return invent_events(seed=7, num_users=50, media={"anime": 30, "manga": 20})


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, tiny_events: list[Event]) -> Path:
    """A finished dataset of `tiny_events`: window_len 32, 20% of users for validation, two packings."""
    from streamfeat.builder.coordinator import build_shards

    folder = tmp_path_factory.mktemp("tiny")
    events = write_csv(folder / "events.csv", tiny_events)
    build_shards([str(events)], folder / "data", window_len=32, split="users:0.2", packings=2,
                 chunk_windows=2, shard_windows=8)  # fmt: skip
    return folder / "data"
