"""The batches of a run, for one rank: from the packings of the dataset, or from live ones as they are written.

The one place that looks ahead: while the device works at a step, the next batch is read, worked out and copied.
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

Prepare = Callable[[Arrays, int], Prepared]  # a batch's arrays, the step that takes it (from 0)


@dataclass
class _Next:
    """A batch that no step has taken."""

    arrays: Arrays
    stream: dict[str, Any]  # the state of the stream before it
    prepared: Prepared | None = None


class Feed:
    """The training batches of a rank, in order. Its position counts those that steps have taken."""

    def __init__(
        self, stream: WindowStream, shards: "LiveShards | None", prepare: Prepare, num_steps: int, world: World
    ) -> None:
        self.lap = Lap()  # since the last wait for a batch began
        self.error: Exception | None = None  # what is wrong with the next batch, found while looking ahead
        self._stream, self._shards, self._prepare = stream, shards, prepare
        self._num_steps, self._world = num_steps, world
        self._batches = _epochs(stream)
        self._next: _Next | None = None

    def await_batch(self, stop: Callable[[], bool]) -> Generator[Note, None, bool]:
        """Wait until the next batch is there on every rank: True. False where any rank is to stop, where its next
        batch has an `error`, or where no more will be written (`problem`). Every rank calls this alike."""
        self.lap = Lap()

        def is_to_stop() -> bool:
            return stop() or self.error is not None

        if self._shards is None:
            return not self._world.any(is_to_stop())[0]
        with self.lap.waiting():
            position = self.state_dict()["position"]
            return (yield from self._shards.awaited(position, is_to_stop, self._world.any))

    def take(self) -> tuple[Prepared, dict[str, Any]]:
        """The next batch, which counts as taken; and the state of a stream that gives it next.

        The arrays of the batch before may no longer be read.
        """
        batch = self._next = self._next or self._read()
        prepared = batch.prepared or self._prepared(batch)
        self._next = None
        self.lap.count(batch.arrays)
        return prepared, batch.stream

    def look_ahead(self) -> None:
        """Read and prepare the next batch, where there is to be one and it is there already.

        What goes wrong is the `error` of the next step: the present one is done, and saved, before it is raised.
        """
        position = self._stream.position
        try:
            if position < self._num_steps and (self._shards is None or self._shards.source.ready(position)):
                self._next = self._read()
                self._next.prepared = self._prepared(self._next)
        except torch.OutOfMemoryError:
            pass  # it is prepared in its own step, when the device has given this one's memory back
        except Exception as error:  # noqa: BLE001  raised by `Session.ended`
            self.error = error

    def state_dict(self) -> dict[str, Any]:
        """The state of a stream that delivered the batches taken so far."""
        return self._next.stream if self._next else self._stream.state_dict()

    @property
    def problem(self) -> str | None:
        """Live: why no more batches will come."""
        return self._shards.problem if self._shards else None

    @property
    def ahead(self) -> int | None:
        """Shards that are written beyond those in use; None where nothing is live."""
        return self._shards.source.ahead() if self._shards else None

    def close(self) -> None:
        """Let the stream's threads go."""
        self._batches.close()

    def _read(self) -> _Next:
        state = self._stream.state_dict()
        with self.lap.waiting():
            return _Next(next(self._batches), state)

    def _prepared(self, batch: _Next) -> Prepared:
        return self._prepare(batch.arrays, batch.stream["position"])


@contextlib.contextmanager
def open_feed(run: Run, world: World, num_steps: int, state: StreamState | None, prepare: Prepare) -> Iterator[Feed]:
    """The batches from `state` on to step `num_steps`; from the first one where it is None.

    Live, this makes the run's folder and starts its producers.
    """
    with contextlib.ExitStack() as opened:
        start = state.position if state else 0
        shards = _go_live(run, world, start, num_steps, opened) if run.config.live else None
        stream = opened.enter_context(_stream(run, world, shards.source if shards else None))
        if state:
            stream.load_state_dict(state.model_dump(mode="json"))
        elif run.resumed and not run.config.live:
            # The packings that the run began with, though more may have been added meanwhile.
            packings = load_manifest(run.path / RUN_DATASET).splits["training"].packings
            stream.load_state_dict({**stream.state_dict(), "packings": packings})
        yield opened.enter_context(contextlib.closing(Feed(stream, shards, prepare, num_steps, world)))


def _go_live(run: Run, world: World, start: int, num_steps: int, opened: contextlib.ExitStack) -> "LiveShards":
    # Brings in the builder, which a run on stored packings does without.
    from streamfeat.live.folder import start_run
    from streamfeat.live.live_shards import live_shards

    config, manifest = run.config, run.manifest

    def started() -> str:
        folder = start_run(
            run.dataset, manifest, seed=config.seed,
            batch_windows=config.batch_windows(manifest.data_schema.window_len), world_size=world.size,
            start=start, stop=num_steps, disk_bytes=config.live_disk, producers=max(config.num_producers(), 1),
            timeout_s=config.live_timeout, trial=run.trial,
        )  # fmt: skip
        return str(opened.enter_context(folder))

    folder = Path(world.from_first(started))
    # Producers that run apart leave a trial alone.
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
        rank=world.rank,
        world_size=world.size,
        threads=config.threads,
        source=source,
    )


def _epochs(stream: WindowStream) -> Generator[Arrays]:
    while True:
        yield from stream
