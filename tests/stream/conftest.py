"""A dataset large enough for several shards, rounds and epochs."""

import random
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100 training windows of 16 tokens in chunks of 2 and shards of 8; two media, two packings."""
    from streamfeat.builder.coordinator import build_shards

    folder = tmp_path_factory.mktemp("streamed")
    rng = random.Random(5)
    lines = ["user,item,medium,timestamp,rating,status,completion"]
    for user in range(120):
        time = 1_300_000_000 + rng.randrange(10**7)
        for _ in range(rng.randint(1, 60 if user % 20 == 0 else 24)):
            time += rng.choice([0, 1, 60, 86_400])
            medium = rng.choice(["anime", "manga"])
            status = rng.choice(["planned", "watching", "completed", "on_hold", "dropped"])
            rating = rng.choice(["", str(rng.randint(1, 10))])
            completion = rng.choice(["0.25", "0.5", "1"])
            lines.append(f"{user},{rng.randrange(25)},{medium},{time},{rating},{status},{completion}")
    events = folder / "events.csv"
    events.write_text("\n".join(lines) + "\n", "utf-8")
    build_shards([str(events)], folder / "data", window_len=16, split="users:0.2", packings=2,
                 chunk_windows=2, shard_windows=8)  # fmt: skip
    return folder / "data"
