"""The trainer's wait for the shards of a live run: the source, the producers, and the timeout."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from streamfeat.errors import StreamfeatError
from streamfeat.live.live_source import LiveSource
from streamfeat.live.producer_processes import Producers
from streamfeat.progress import Note
from streamfeat.store.manifest import Manifest

_POLL_S = 0.02  # time between two checks for the next shard
_TELL_S = 5.0  # time between two notes about the wait


class LiveShards:
    """The source of one rank of a live run, and the producers that its process started, if any."""

    def __init__(self, source: LiveSource, producers: Producers | None, timeout_s: float) -> None:
        """`timeout_s`: give up if a batch waits and no shard is written for so long."""
        self.source = source
        self.problem: str | None = None  # why no more shards will come
        self._producers, self._timeout_s = producers, timeout_s
        self._warned = ""  # the last warning of a producer

    def awaited(
        self,
        position: int,
        stop: Callable[[], bool],
        any_rank: Callable[[bool, bool], tuple[bool, ...]],
    ) -> Generator[Note, None, bool]:
        """Waits until every rank has the shards of global batch `position`; returns True. Returns False if any rank is
        to stop or has a `problem`. Every rank must call this.

        any_rank: a function that returns, for each of two flags, whether any rank has set it.
        """
        asked = told = fresh = time.monotonic()
        ahead = self.source.ahead()
        while True:
            yield from self._told_by_producers()
            missing = "" if self.source.ready(position) else self.source.needed(position)
            now = time.monotonic()
            if self._producers is not None and not self._producers.started:
                fresh = now  # the producers are still starting
            if missing and now - fresh > self._timeout_s:
                self.problem = (
                    f"waited {now - asked:,.0f} s for {missing} and nothing was written; see whether producers "
                    f"run (build-shards EVENTS OUT --live, or --live-workers){self._warned}"
                )
            stopped, lacking = any_rank(stop() or self.problem is not None, bool(missing))
            if stopped or not lacking:
                return not stopped
            time.sleep(_POLL_S)
            if (written := self.source.ahead()) != ahead:
                ahead, fresh = written, time.monotonic()
            if missing and now - told > _TELL_S:
                told = now
                yield Note(f"waited {now - asked:,.0f} s for {missing}")

    def _told_by_producers(self) -> Iterator[Note]:
        """The notes of the producers. If they cannot continue, sets `problem`."""
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
            yield note


@contextlib.contextmanager
def live_shards(
    root: Path, folder: Path, manifest: Manifest, rank: int, *, num_producers: int, timeout_s: float
) -> Iterator[LiveShards]:
    """The shards, for one rank, of the live run `folder` that `start_run` created on the dataset `root`. Starts
    `num_producers` producers. Raises the errors of `LiveSource`."""
    with LiveSource(root, folder, manifest, rank) as source, contextlib.ExitStack() as held:
        producers = held.enter_context(Producers(root, folder, num_producers)) if num_producers else None
        yield LiveShards(source, producers, timeout_s)
