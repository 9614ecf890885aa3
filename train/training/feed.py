"""The batches of a run, for one rank: from the packings of the dataset, or from live ones as they are written."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from streamfeat.errors import StreamfeatError
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest
from streamfeat.stream.stream import WindowStream
from train.devices.ranks import World
from train.model.targets import Arrays
from train.runs.folder import Run
from train.runs.record import RUN_DATASET
from train.training.progress import TrainingReport, Waiting

if TYPE_CHECKING:
    from streamfeat.live.live_source import LiveSource
    from streamfeat.live.producers import Producers

_POLL_S = 0.02  # between two looks whether the next shard is there
_TELL_S = 5.0  # between two words about it


class Timed:
    """Batches, and how long they kept their reader waiting."""

    def __init__(self, batches: Generator[Arrays]) -> None:
        self._batches = batches
        self._began = time.perf_counter()
        self._num_tokens = 0
        self._ahead: Arrays | None = None  # looked at, but not taken
        self.waited_s = 0.0  # since the last lap

    def __iter__(self) -> Iterator[Arrays]:
        return self

    def peek(self) -> Arrays:
        """The next batch, which `next` will take; what was taken before may no longer be read."""
        if self._ahead is None:
            asked = time.perf_counter()
            self._ahead = next(self._batches)
            self.waited_s += time.perf_counter() - asked
        return self._ahead

    def __next__(self) -> Arrays:
        arrays, self._ahead = self.peek(), None
        self._num_tokens += int((arrays["segment"] >= 0).sum())
        return arrays

    def start_lap(self) -> None:
        """Measure from now on."""
        self._began, self.waited_s, self._num_tokens = time.perf_counter(), 0.0, 0

    def lap(self) -> tuple[float, float]:
        """Tokens per second and the share of time spent waiting since the lap began; PAD is no token."""
        seconds = time.perf_counter() - self._began
        return self._num_tokens / seconds, self.waited_s / seconds

    def close(self) -> None:
        """Let the stream's threads go."""
        self._batches.close()


class Feed:
    """The training batches of a rank, from a position on to the end of the run."""

    def __init__(self, run: Run, world: World, num_steps: int, state: Mapping[str, Any]) -> None:
        """`state` is a stream's, empty at the start. Live, this starts the run's folder and its producers."""
        self._world, self._timeout_s = world, run.config.live_timeout
        self._open = contextlib.ExitStack()
        self._source: LiveSource | None = None
        self._producers: Producers | None = None
        self._before: dict[str, Any] | None = None  # the stream's state before the batch that was looked at
        self.problem: str | None = None  # why no more batches will come
        self._warned = ""  # what a producer said last that was a warning
        try:
            if run.config.live:
                self._go_live(run, num_steps, int(state.get("position", 0)))
            self.stream = self._open.enter_context(self._stream(run))
            self._take_up(run, state)
        except BaseException:
            self._open.close()
            raise
        self.timed = Timed(self._epochs())
        self._open.callback(self.timed.close)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def await_batch(self, stop: Callable[[], bool]) -> Generator[TrainingReport, None, bool]:
        """Wait until the next batch is there on every rank: True. False where any rank is to stop, or where no
        producer wrote anything for the live timeout (`problem` says so)."""
        self.timed.start_lap()
        if self._source is None:
            return not self._world.any(stop())[0]
        asked = told = fresh = time.monotonic()
        ahead = self._source.ahead()
        while True:
            yield from self._told_by_producers()
            is_missing = not self.is_there()
            missing_shard = self._source.needed(self.stream.position) if is_missing else None
            now = time.monotonic()
            if self._producers is not None and not self._producers.started:
                fresh = now  # they are still on their way
            if is_missing and now - fresh > self._timeout_s:
                self.problem = (
                    f"waited {now - asked:,.0f} s for {missing_shard} and nothing was written; see whether producers "
                    f"run (build-shards EVENTS OUT --live, or --live-workers){self._warned}"
                )
            stopped, missing = self._world.any(stop() or self.problem is not None, is_missing)
            if stopped or not missing:
                break
            time.sleep(_POLL_S)
            if (written := self._source.ahead()) != ahead:
                ahead, fresh = written, time.monotonic()
            if missing_shard and now - told > _TELL_S:
                told = now
                yield Waiting(now - asked, missing_shard)
        self.timed.waited_s += time.monotonic() - asked
        return not stopped

    def is_there(self) -> bool:
        """Whether `peek` finds the next batch written; always, but for live windows."""
        return self._before is not None or self._source is None or self._source.ready(self.stream.position)

    def peek(self) -> Arrays:
        """The next batch, while the position stays before it; what was taken before may no longer be read."""
        if self._before is None:
            self._before = self.stream.state_dict()
        return self.timed.peek()

    def take(self) -> Arrays:
        """The next batch, and the position behind it."""
        arrays, self._before = next(self.timed), None
        return arrays

    def state_dict(self) -> dict[str, Any]:
        """The state of a stream that delivered the batches taken so far."""
        return self._before or self.stream.state_dict()

    def ahead(self) -> int | None:
        """Shards that are written beyond those in use; None where nothing is live."""
        return self._source.ahead() if self._source else None

    def _told_by_producers(self) -> Iterator[Note]:
        """What the producers have to say; where they cannot go on, that is the `problem`, and the run is saved."""
        if self._producers is None:
            return
        try:
            notes = self._producers.poll()
        except StreamfeatError as error:
            self.problem = str(error)
            return
        for note in notes:
            if note.warning:
                self._warned = f"; the last warning of a producer: {note.text}"
            yield Note(note.text, warning=note.warning)

    def _go_live(self, run: Run, num_steps: int, start: int) -> None:
        # Brings in the builder, which a run on stored packings does without.
        from streamfeat.live.folder import start_run
        from streamfeat.live.live_source import LiveSource
        from streamfeat.live.producers import Producers

        config, manifest = run.config, run.manifest

        def started() -> str:
            folder = start_run(
                run.dataset, manifest, seed=config.seed,
                batch_windows=config.batch_windows(manifest.data_schema.window_len), world_size=self._world.size,
                start=start, stop=num_steps, disk_bytes=config.live_disk, producers=max(config.num_producers(), 1),
                timeout_s=config.live_timeout, trial=run.trial,
            )  # fmt: skip
            return str(self._open.enter_context(folder))

        folder = Path(self._world.from_first(started))
        self._source = LiveSource(run.dataset, folder, manifest, self._world.rank)
        self._open.callback(self._source.close)
        # Producers that run apart leave a trial alone.
        num_producers = max(config.num_producers(), int(run.trial))
        if self._world.is_first and num_producers:
            self._producers = self._open.enter_context(Producers(run.dataset, folder, num_producers))

    def _stream(self, run: Run) -> WindowStream:
        config = run.config
        return WindowStream(
            run.dataset,
            objective=config.objective,
            mask_policy=config.mask_policy,
            batch_windows=config.batch_windows(run.manifest.data_schema.window_len),
            seed=config.seed,
            rank=self._world.rank,
            world_size=self._world.size,
            threads=config.threads,
            source=self._source,
        )

    def _take_up(self, run: Run, state: Mapping[str, Any]) -> None:
        if state:
            self.stream.load_state_dict(dict(state))
        elif run.resumed and not run.config.live:
            # The packings that the run began with, though more may have been added meanwhile.
            packings = load_manifest(run.path / RUN_DATASET).splits["training"].packings
            self.stream.load_state_dict({**self.stream.state_dict(), "packings": packings})

    def _epochs(self) -> Generator[Arrays]:
        while True:
            yield from self.stream
