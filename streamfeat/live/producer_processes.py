"""Producer processes that the trainer starts, watches and replaces."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from streamfeat.errors import ConfigError, StorageError, StreamfeatError
from streamfeat.live.producer import Held, Produced, produce
from streamfeat.progress import Note
from streamfeat.workers.child import Child, Supervisor
from streamfeat.workers.process import Pipe, start_worker

PAUSE_S = 0.05  # pause of a producer that cannot write now
MOST_DEATHS = 3  # so many deaths in a row without a new shard are allowed; one more ends training
SAY_AGAIN_S = 300.0  # the same note is given at most this often


@dataclass(frozen=True)
class Begun:
    """A producer is ready to write."""


@dataclass(frozen=True)
class Ended:
    """A producer has seen the end of the run."""


@dataclass(frozen=True)
class Failed:
    """A producer ends because of an error."""

    reason: str


Message = Begun | Produced | Held | Ended | Failed


@dataclass
class _Producer:
    child: Child
    has_ended: bool = False  # regularly, because the run has ended
    held: str = ""  # kind of its last `Held`; "" while it writes
    reason: str = ""  # reason of its failure


class Producers:
    """`num` producers (0: none) of the live run `folder`. They are processes that end with this one.

    `shards` is the number of shards that they have written.
    """

    def __init__(self, root: Path, folder: Path, num: int) -> None:
        self.shards = 0
        self._root, self._folder, self._num = root, folder, num
        self._producers: list[_Producer] = []
        self._deaths = 0  # deaths since the last shard
        self._ever_started = False
        self._said: dict[str, float] = {}
        self._supervisor = Supervisor()

    def __enter__(self) -> "Producers":
        self._producers = [self._start() for _ in range(self._num)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def poll(self) -> list[Note]:
        """The new notes. Replaces dead producers. Fast enough to be called at every step.

        Raises StorageError if several died in a row without a new shard, ConfigError if none can start.
        """
        notes: list[Note] = []
        for place, producer in enumerate(self._producers):
            is_gone = not producer.child.process.is_alive()  # checked before reading, so that no message is missed
            for message in producer.child.messages():
                notes += self._hear(producer, message)
            if is_gone and not producer.has_ended:
                notes.append(self._mourned(producer))
                self._producers[place] = self._start()
        return notes

    @property
    def started(self) -> bool:
        """Whether any producer was ready to write."""
        return self._ever_started

    @property
    def ended(self) -> bool:
        """Whether every producer has seen the end of the run."""
        return all(producer.has_ended for producer in self._producers)

    def close(self) -> None:
        """Ends the producers, even if they are writing a shard."""
        self._supervisor.end()
        self._producers = []

    def _start(self) -> _Producer:
        return _Producer(self._supervisor.start(_work, (self._root, self._folder), "live-producer"))

    def _hear(self, producer: _Producer, message: Message) -> list[Note]:
        match message:
            case Begun():
                self._ever_started = True
            case Produced():
                was_full, producer.held = producer.held == "full", ""
                self.shards += 1
                self._deaths = 0
                if was_full:
                    self._said.pop("full", None)
                    return [Note("there is room on the disk again; producers continue")]
            case Ended():
                producer.has_ended = True
            case Failed(reason):
                producer.reason = reason
            case Held("full", reason):
                producer.held = "full"
                return self._say("full", Note(f"a producer waits: {reason}", warning=True))
            case Held(kind, reason):
                producer.held, self._deaths = kind, 0  # no shard is missing, so this counts as progress
                if all(other.held == kind for other in self._producers):
                    return self._say(kind, Note(f"producers wait: {reason}"))
        return []

    def _say(self, kind: str, note: Note) -> list[Note]:
        now = time.monotonic()
        if now - self._said.get(kind, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return []
        self._said[kind] = now
        return [note]

    def _mourned(self, producer: _Producer) -> Note:
        """The note about a producer that died. Raises an error if too many died in a row."""
        process = producer.child.process
        process.join()
        what = f"producer {process.pid} {producer.child.how_it_ended()}"
        if producer.reason:
            what += f": {producer.reason}"
        self._supervisor.forget(producer.child)
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            if not self._ever_started:
                raise ConfigError(
                    "producers cannot start; in a script of your own, train below `if __name__ == '__main__':` "
                    "(producers import the script), or start them with `build-shards --live` in another terminal"
                )
            raise StorageError(
                f"{self._deaths} producers in a row died without writing a shard, the last one: {what}; "
                "remove the cause, then train again with --live and --resume"
            )
        return Note(f"{what}; another one takes its place", warning=True)


def _work(parent: int, pipe: Pipe, root: Path, folder: Path) -> None:
    """The main function of a producer process. It sends few messages, so that a parent that is busy for minutes does
    not block it."""
    start_worker(parent)
    pipe.send(Begun())
    held = ""
    try:
        for event in produce(root, folder):
            kind = event.kind if isinstance(event, Held) else ""
            if not kind or kind != held:
                pipe.send(event)
            held = kind
            if held:
                time.sleep(PAUSE_S)
    except StreamfeatError as error:
        pipe.send(Failed(str(error)))
        sys.exit(error.exit_code)
    except Exception as error:
        pipe.send(Failed(f"{type(error).__name__}: {error}"))
        raise
    pipe.send(Ended())
