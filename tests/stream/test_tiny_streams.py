"""Datasets smaller than a batch, a round or the number of ranks: they work, or give an error with a remedy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamfeat import WindowStream, load_manifest
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError

WORLD = 8


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 users, 3 training windows."""
    folder = tmp_path_factory.mktemp("tiny_streams")
    rows = (f"u{n % 10},i{n % 7},{1_400_000_000 + n * 60},{n % 5 + 1}" for n in range(86))
    (folder / "e.csv").write_text("user,item,timestamp,rating\n" + "\n".join(rows) + "\n")
    build_shards([str(folder / "e.csv")], folder / "data", window_len=32, split="users:0.1")
    counts = load_manifest(folder / "data").splits["training"]
    assert (counts.users, counts.windows) == (9, 3)
    return folder / "data"


def stream_of(dataset: Path, **options: Any) -> WindowStream:
    defaults: dict[str, Any] = {"objective": "masked", "batch_windows": 24, "seed": 3, "copy": True}
    return WindowStream(dataset, **(defaults | options))


@pytest.mark.parametrize("split", ["training", "validation"])
@pytest.mark.parametrize("batch_windows", [8, 24])
def test_ten_users_on_eight_ranks_give_every_rank_one_step(tiny: Path, batch_windows: int, split: str) -> None:
    """Each window goes to one rank, the others get empty ones. In their slots, the rows equal the batch of one rank."""
    alone = list(stream_of(tiny, batch_windows=batch_windows, split=split))
    assert len(alone) == 1
    ranks = [
        list(stream_of(tiny, batch_windows=batch_windows, split=split, rank=rank, world_size=WORLD))
        for rank in range(WORLD)
    ]
    assert [len(batches) for batches in ranks] == [1] * WORLD
    together = {name: np.empty_like(values) for name, values in alone[0].items()}
    for (batch,) in ranks:
        for name, values in batch.items():
            together[name][batch["slot"]] = values
    for name, values in alone[0].items():
        np.testing.assert_array_equal(together[name], values, name)
    windows = together["window"][together["window"] >= 0]
    assert sorted(windows.tolist()) == list(range(load_manifest(tiny).splits[split].windows))
    assert together["weight_item"][together["window"] < 0].sum() == 0


def test_a_batch_that_ranks_cannot_share_is_refused_with_what_fits(tiny: Path) -> None:
    """At once, on every rank, so no rank waits."""
    for rank in range(WORLD):
        with pytest.raises(ConfigError, match=r"world size of 1, 2, 4"):
            stream_of(tiny, batch_windows=4, rank=rank, world_size=WORLD)


@pytest.mark.parametrize("batch_windows", [1, 2, 24])
def test_restored_at_every_batch_of_two_epochs_a_tiny_stream_delivers_the_uninterrupted_rest(
    tiny: Path, batch_windows: int
) -> None:
    """Three windows in batches of one, of two and of more; also at the ends of epochs."""
    stream = stream_of(tiny, batch_windows=batch_windows)
    batches, states = [], [json.dumps(stream.state_dict())]
    for _ in range(2):
        for batch in stream:
            batches.append(batch)
            states.append(json.dumps(stream.state_dict()))
    assert len(batches) == 2 * -(-3 // batch_windows)
    for number, state in enumerate(states[:-1]):
        resumed = stream_of(tiny, batch_windows=batch_windows, threads=2)
        resumed.load_state_dict(json.loads(state))
        rest = list(resumed)
        if len(rest) < len(batches) - number:
            rest += list(resumed)
        for got, expected in zip(rest, batches[number:], strict=True):
            for name, values in expected.items():
                np.testing.assert_array_equal(got[name], values, name)


def test_a_state_resumes_at_the_same_global_batch_on_another_number_of_ranks(tiny: Path) -> None:
    """Saved on one rank after the first epoch, loaded by eight."""
    stream = stream_of(tiny)
    list(stream)
    state = stream.state_dict()
    expected = next(iter(stream))
    for rank in range(WORLD):
        part = stream_of(tiny, rank=rank, world_size=WORLD)
        part.load_state_dict(state)
        batch = next(iter(part))
        for name, values in batch.items():
            np.testing.assert_array_equal(values, expected[name][batch["slot"]], name)
