"""Live runs for tests: started, produced in this process step by step, read by all ranks in lockstep, measured."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat import WindowStream, load_manifest
from streamfeat.live.folder import read_run, start_run
from streamfeat.live.live_source import LiveSource
from streamfeat.live.positions import Positions
from streamfeat.live.producer import Held, produce
from streamfeat.live.schedule import least_disk_bytes
from streamfeat.stream.order import steps_per_epoch

Arrays = dict[str, NDArray[Any]]
SEED, BATCH = 3, 8


def steps_of(root: Path, batch_windows: int = BATCH) -> int:
    return steps_per_epoch(load_manifest(root).splits["training"].windows, batch_windows)


@contextlib.contextmanager
def started(
    root: Path, *, epochs: int = 3, start: int = 0, world_size: int = 1, producers: int = 1,
    batch_windows: int = BATCH, disk_bytes: int = 0, timeout_s: float = 600.0,
) -> Iterator[Path]:  # fmt: skip
    """A run with the smallest limit, unless `disk_bytes` is given."""
    manifest = load_manifest(root)
    least = least_disk_bytes(manifest, batch_windows, producers, world_size=world_size)
    with start_run(
        root, manifest, seed=SEED, batch_windows=batch_windows, world_size=world_size, start=start,
        stop=epochs * steps_of(root, batch_windows), disk_bytes=disk_bytes or least, producers=producers,
        timeout_s=timeout_s,
    ) as folder:  # fmt: skip
        yield folder


def idle() -> None:
    """Does nothing while a reader waits."""


def read_live(
    root: Path, folder: Path, *, epochs: int = 3, start: int = 0, world_size: int = 1, producers: int = 1,
    batch_windows: int = BATCH, watch: Callable[[], None] = idle, **options: Any,
) -> list[list[Arrays]]:  # fmt: skip
    """Each rank's batches from `start` to the end of the epochs, with the ranks in lockstep. The producers run in this
    process and write when a batch lacks a shard. After a minute without it, the run counts as stuck."""
    manifest = load_manifest(root)
    makers = [produce(root, folder) for _ in range(producers)]
    batches: list[list[Arrays]] = [[] for _ in range(world_size)]
    with contextlib.ExitStack() as opened:
        sources = [opened.enter_context(LiveSource(root, folder, manifest, rank)) for rank in range(world_size)]
        streams = [
            opened.enter_context(
                stream_of(root, batch_windows=batch_windows, rank=rank, world_size=world_size, source=source, **options)
            )
            for rank, source in enumerate(sources)
        ]
        for stream in streams:
            stream.load_state_dict({**stream.state_dict(), "position": start})
        endless = [_endless(stream) for stream in streams]
        for position in range(start, epochs * steps_of(root, batch_windows)):
            deadline = time.monotonic() + 60
            while not all(source.ready(position) for source in sources):
                assert time.monotonic() < deadline, f"stuck before batch {position}: {sources[0].needed(position)}"
                events = [next(maker) for maker in makers]
                if all(isinstance(event, Held) for event in events):
                    time.sleep(0.002)
                watch()
            for rank, stream in enumerate(endless):
                batches[rank].append(next(stream))
            watch()
        for stream in endless:
            stream.close()
    return batches


def stream_of(root: Path, **options: Any) -> WindowStream:
    defaults: dict[str, Any] = {"objective": "causal", "batch_windows": BATCH, "seed": SEED, "copy": True}
    return WindowStream(root, **(defaults | options))


def read_built(root: Path, *, epochs: int = 3, start: int = 0, **options: Any) -> list[Arrays]:
    """The same batches from packings that were built before."""
    with stream_of(root, **options) as stream:
        stream.load_state_dict({**stream.state_dict(), "position": start})
        batches = []
        while stream.position < epochs * stream.steps_per_epoch:
            batches += list(stream)
    return batches


def _endless(stream: WindowStream) -> Iterator[Arrays]:
    while True:
        yield from stream


def assert_same(first: list[Arrays], second: list[Arrays]) -> None:
    assert len(first) == len(second)
    for i, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], f"{name} of batch {i}")


def await_freed(folder: Path, position: int) -> None:
    """Waits until rank 0 has deleted the shards that are past at `position`."""
    deadline = time.monotonic() + 60
    positions = Positions(folder, read_run(folder))
    while positions.freed < position:
        assert time.monotonic() < deadline
        time.sleep(0.002)
        positions.refresh()


def disk_usage(folder: Path) -> int:
    """The result of `du`, while files come and go."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in [".", *names]:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512  # noqa: PTH118
    return total


def committed(folder: Path) -> int:
    """Shards that are committed and not deleted."""
    return len(list((folder / "receipts").glob("window-*.json")))
