"""The batches of a run for one rank: from the dataset's packings, or from live packings while they are written.

Only this module reads ahead: while the device computes a step, the next batch is read, prepared and copied.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest
from streamfeat.stream.chunk_source import ChunkSource
from streamfeat.stream.stream import StreamState, WindowStream
from train.devices.ranks import World
from train.model.targets import Arrays
from train.runs.folder import Run
from train.runs.record import RUN_DATASET
from train.training.lap import Lap
from train.training.update import Prepared

if TYPE_CHECKING:
    from streamfeat.live.live_shards import LiveShards

Prepare = Callable[[Arrays, int], Prepared]  # (arrays of a batch, step that trains on it, from 0)


@dataclass
class _Next:
    """A batch that was read but not yet taken."""

    arrays: Arrays
    stream: dict[str, Any]  # the state of the stream before it
    prepared: Prepared | None = None


class Feed:
    """The training batches of a rank, in order. Its position counts the batches that were taken."""

    def __init__(
        self, stream: WindowStream, shards: "LiveShards | None", prepare: Prepare, num_steps: int, world: World
    ) -> None:
        self.lap = Lap()  # starts when the wait for a batch begins
        self.error: Exception | None = None  # the error of the next batch, found while reading ahead
        self._stream, self._shards, self._prepare = stream, shards, prepare
        self._num_steps, self._world = num_steps, world
        self._batches = _epochs(stream)
        self._next: _Next | None = None

    def await_batch(self, stop: Callable[[], bool]) -> Generator[Note, None, bool]:
        """Waits until every rank has its next batch, and returns True. Returns False if any rank is to stop, if its
        next batch has an `error`, or if no more batches will come (`problem`). Every rank must call this."""
        self.lap = Lap()

        def is_to_stop() -> bool:
            return stop() or self.error is not None

        if self._shards is None:
            return not self._world.any(is_to_stop())[0]
        with self.lap.waiting():
            position = self.state_dict()["position"]
            return (yield from self._shards.awaited(position, is_to_stop, self._world.any))

    def take(self) -> tuple[Prepared, dict[str, Any]]:
        """Takes the next batch. Also returns the state of a stream that yields this batch next.

        The arrays of the batch before are no longer valid.
        """
        batch = self._next = self._next or self._read()
        prepared = batch.prepared or self._prepared(batch)
        self._next = None
        self.lap.count(batch.arrays)
        return prepared, batch.stream

    def look_ahead(self) -> None:
        """Reads and prepares the next batch, if there is one and it is available.

        A failure becomes `error`. It is raised after the current step has been finished and saved.
        """
        position = self._stream.position
        try:
            if position < self._num_steps and (self._shards is None or self._shards.source.ready(position)):
                self._next = self._read()
                self._next.prepared = self._prepared(self._next)
        except torch.OutOfMemoryError:
            pass  # the next step prepares it, when the memory of the current step is free
        except Exception as error:  # noqa: BLE001  raised by `Session.ended`
            self.error = error

    def state_dict(self) -> dict[str, Any]:
        """The state of the stream after the batches taken so far."""
        return self._next.stream if self._next else self._stream.state_dict()

    @property
    def problem(self) -> str | None:
        """With live training: the reason why no more batches will come."""
        return self._shards.problem if self._shards else None

    @property
    def ahead(self) -> int | None:
        """With live training: number of written shards after those in use. Otherwise None."""
        return self._shards.source.ahead() if self._shards else None

    def close(self) -> None:
        """Stops the stream's threads."""
        self._batches.close()

    def _read(self) -> _Next:
        state = self._stream.state_dict()
        with self.lap.waiting():
            return _Next(next(self._batches), state)

    def _prepared(self, batch: _Next) -> Prepared:
        return self._prepare(batch.arrays, batch.stream["position"])


@contextlib.contextmanager
def open_feed(run: Run, world: World, num_steps: int, state: StreamState | None, prepare: Prepare) -> Iterator[Feed]:
    """Opens the batches from the stream's `state` (None: from the first batch) up to step `num_steps`.

    With live training, this creates the run's live folder and starts its producers.
    """
    with contextlib.ExitStack() as opened:
        start = state.position if state else 0
        shards = _go_live(run, world, start, num_steps, opened) if run.config.live else None
        stream = opened.enter_context(_stream(run, world, shards.source if shards else None))
        if state:
            stream.load_state_dict(state.model_dump(mode="json"))
        elif run.resumed and not run.config.live:
            # Use the packings that the run began with; more may have been added since.
            packings = load_manifest(run.path / RUN_DATASET).splits["training"].packings
            stream.load_state_dict({**stream.state_dict(), "packings": packings})
        yield opened.enter_context(contextlib.closing(Feed(stream, shards, prepare, num_steps, world)))


def _go_live(run: Run, world: World, start: int, num_steps: int, opened: contextlib.ExitStack) -> "LiveShards":
    # Imported here, because it loads the builder, which a run on stored packings does not need.
    from streamfeat.live.folder import start_run
    from streamfeat.live.live_shards import live_shards

    config, manifest = run.config, run.manifest

    def started() -> str:
        folder = start_run(
            run.dataset,
            manifest,
            seed=config.seed,
            batch_windows=config.batch_windows(manifest.data_schema.window_len),
            world_size=world.size,
            start=start,
            stop=num_steps,
            disk_bytes=config.live_disk,
            producers=max(config.num_producers(), 1),
            timeout_s=config.live_timeout,
            trial=run.trial,
        )
        return str(opened.enter_context(folder))

    folder = Path(world.from_first(started))
    # A trial starts its own producer: separate ones (`live_workers` 0) do not serve trials.
    num_producers = max(config.num_producers(), int(run.trial)) if world.is_first else 0
    shards = live_shards(
        run.dataset, folder, manifest, world.rank, num_producers=num_producers, timeout_s=config.live_timeout
    )
    return opened.enter_context(shards)


def _stream(run: Run, world: World, source: ChunkSource | None) -> WindowStream:
    config = run.config
    return WindowStream(
        run.dataset,
        objective=config.objective,
        mask_policy=config.mask_policy,
        batch_windows=config.batch_windows(run.manifest.data_schema.window_len),
        seed=config.seed,
        hidden_times=config.hidden_times,
        rank=world.rank,
        world_size=world.size,
        threads=config.threads,
        source=source,
    )


def _epochs(stream: WindowStream) -> Generator[Arrays]:
    while True:
        yield from stream
