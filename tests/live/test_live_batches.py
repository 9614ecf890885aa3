"""Live batches equal those of packings built before, for any producers and readers."""

import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from live_runs import assert_same, committed, disk_usage, read_built, read_live, started, steps_of, stream_of

from streamfeat import load_manifest
from streamfeat.errors import ConfigError, DamagedError, StorageError
from streamfeat.live.live_source import LiveSource
from streamfeat.live.producer import produce
from streamfeat.live.producer_processes import Producers


@pytest.mark.parametrize(
    ("options", "start", "producers"),
    [
        ({"objective": "causal", "threads": 1}, 0, 1),
        ({"objective": "masked", "threads": 2}, 0, 2),
        ({"objective": "masked", "threads": 1, "mask_policy": "seed"}, 9, 3),
        ({"objective": "causal", "threads": 2}, 13, 1),
    ],
)
def test_live_batches_equal_those_of_the_same_epochs_built_beforehand(
    built: Path, root: Path, options: dict[str, Any], start: int, producers: int
) -> None:
    """Every array of three epochs, also from the middle of one, with a limit at which shards must be deleted."""
    with started(root, start=start, producers=producers) as folder:
        live = read_live(root, folder, start=start, producers=producers, **options)
        assert committed(folder) < 13
    assert_same(live[0], read_built(built, start=start, **options))


@pytest.mark.parametrize(("threads", "start"), [(1, 0), (2, 5)])
def test_the_ranks_of_a_live_run_read_what_they_would_read_of_built_packings(
    built: Path, root: Path, threads: int, start: int
) -> None:
    """Two ranks. A shard stays until both are past it."""
    with started(root, start=start, world_size=2, producers=2) as folder:
        live = read_live(root, folder, start=start, world_size=2, producers=2, objective="masked", threads=threads)
    for rank in (0, 1):
        expected = read_built(built, start=start, rank=rank, world_size=2, objective="masked")
        assert_same(live[rank], expected)


@pytest.mark.parametrize("batch_windows", [1, 5, 24, 250])
def test_any_batch_size_can_be_read_under_its_least_cap(built: Path, root: Path, batch_windows: int) -> None:
    """One lane, batches of a whole packing, batches that span rounds."""
    with started(root, batch_windows=batch_windows, epochs=2) as folder:
        live = read_live(root, folder, batch_windows=batch_windows, epochs=2)
    assert_same(live[0], read_built(built, batch_windows=batch_windows, epochs=2))


@pytest.mark.slow
def test_two_producer_processes_write_under_the_cap_what_a_build_writes(built: Path, root: Path) -> None:
    """Real processes. The size of OUT/live is measured all the time and never exceeds the limit."""
    measured: list[int] = []
    done = threading.Event()

    def measure() -> None:
        while not done.wait(0.002):
            measured.append(disk_usage(root / "live"))

    with started(root, producers=2) as folder:
        bound = int(load_run(folder)["disk_bytes"])
        measurer = threading.Thread(target=measure, daemon=True)
        measurer.start()
        with (
            Producers(root, folder, 2) as producers,
            LiveSource(root, folder, load_manifest(root), 0) as source,
            stream_of(root, source=source, threads=2) as stream,
        ):
            live = []
            while stream.position < 3 * stream.steps_per_epoch:
                for batch in stream:
                    live.append(batch)
                    producers.poll()
                    await_ready(source, stream.position)
            while producers.shards < 3 * 13:
                producers.poll()
                time.sleep(0.01)
        done.set()
        measurer.join()
    assert_same(live, read_built(built))
    assert 0.3 * bound < max(measured) <= bound
    assert [path.name for path in (root / "live").iterdir()] == [".lock"]


def load_run(folder: Path) -> Any:
    from streamfeat.live.folder import read_run

    return read_run(folder).model_dump()


def await_ready(source: LiveSource, position: int) -> None:
    deadline = time.monotonic() + 180
    while not source.ready(position):
        assert time.monotonic() < deadline, source.needed(position)
        time.sleep(0.005)


def test_space_stays_within_the_bound_after_every_move(root: Path) -> None:
    """Three producers in turn, two ranks, the smallest limit."""
    bound = []

    def watch() -> None:
        assert disk_usage(root / "live") <= bound[0]

    with started(root, world_size=2, producers=3) as folder:
        bound.append(int(load_run(folder)["disk_bytes"]))
        read_live(root, folder, world_size=2, producers=3, watch=watch)


def test_a_live_state_resumes_live_and_is_refused_elsewhere(built: Path, root: Path) -> None:
    """A live stream rejects the state of a stored stream, too. The errors name both kinds."""
    manifest = load_manifest(root)
    stored = stream_of(built).state_dict()
    with started(root) as folder, LiveSource(root, folder, manifest, 0) as source:
        stream = stream_of(root, source=source)
        state = {**stream.state_dict(), "position": 4}
        assert state["packings"] == 0
        with pytest.raises(ConfigError, match=r"saved live \(here the stream reads on packings built beforehand\)"):
            stream_of(built).load_state_dict(state)
        with pytest.raises(ConfigError, match=r"saved on packings built beforehand \(here the stream reads live\)"):
            stream.load_state_dict(stored)
        stream.load_state_dict(state)
        assert stream.position == 4
    validation = stream_of(root, split="validation")
    validation.load_state_dict(validation.state_dict())
    assert len(list(validation)) == validation.steps_per_epoch


def test_readers_that_wait_hold_up_nothing_and_end_when_the_stream_is_closed(built: Path, root: Path) -> None:
    """The producer stops in the middle of an epoch: batches whose chunks are there are delivered, then `close`
    returns."""
    expected = read_built(built, epochs=1)
    with started(root) as folder, LiveSource(root, folder, load_manifest(root), 0) as source:
        maker = produce(root, folder)
        for _ in range(9):
            next(maker)
        num_ready = next(position for position in range(99) if not source.ready(position))
        assert 2 < num_ready < len(expected)
        stream = stream_of(root, source=source, threads=2)
        batches = iter(stream)
        assert_same(list(islice(batches, num_ready)), expected[:num_ready])
        assert [thread for thread in threading.enumerate() if thread.name.startswith("streamfeat")]
        begun = time.monotonic()
        stream.close()
        assert list(batches) == []
        assert time.monotonic() - begun < 30
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("streamfeat")]


def test_a_shard_or_folder_that_somebody_removed_is_an_error_that_says_so(root: Path) -> None:
    """Never zeros, and never an endless wait."""
    import shutil

    with started(root) as folder, LiveSource(root, folder, load_manifest(root), 0) as source:
        maker = produce(root, folder)
        next(maker)
        while not source.ready(0):
            next(maker)
        shutil.rmtree(folder / "windows.zarr/0/time/c")
        with (
            stream_of(root, source=source) as stream,
            pytest.raises(DamagedError, match=r"time/c/\d+/0(.|\n)*--resume"),
        ):
            next(iter(stream))
        shutil.rmtree(folder)
        with pytest.raises(StorageError, match="the folder of this live run was removed"):
            source.ready(steps_of(root))
        with stream_of(root, source=source) as stream:
            stream.load_state_dict({**stream.state_dict(), "position": steps_of(root)})
            with pytest.raises((StorageError, DamagedError)):
                next(iter(stream))
        assert list(maker) == []


def test_a_batch_that_no_producer_serves_is_refused(root: Path) -> None:
    """After the run's last position, and before its first."""
    with started(root, epochs=1, start=6) as folder, LiveSource(root, folder, load_manifest(root), 0) as source:
        maker = produce(root, folder)
        while next(maker).__class__.__name__ == "Produced":
            pass
        for position in (0, steps_of(root)):
            with stream_of(root, source=source) as stream:
                stream.load_state_dict({**stream.state_dict(), "position": position})
                with pytest.raises(ConfigError, match="has the shards of the global batches"):
                    next(iter(stream))
