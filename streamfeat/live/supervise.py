"""Producer processes that the trainer starts, watches and replaces."""

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from streamfeat.build.worker import how_it_ended, start_worker
from streamfeat.errors import ConfigError, StorageError, StreamfeatError
from streamfeat.live.producer import Held, Produced, produce
from streamfeat.signals import exit_by

PAUSE_S = 0.05  # of a producer that is held
MOST_DEATHS = 3  # in a row without a new shard; one more is the end
SAY_AGAIN_S = 300.0  # the same thing is said at most this often
_END_S = 5.0  # that a producer has to end when it is asked to


@dataclass(frozen=True)
class ProducerNote:
    """Something to tell of the producers."""

    text: str
    warning: bool = False


@dataclass
class _Child:
    process: BaseProcess
    pipe: Connection
    started: bool = False
    ended: bool = False  # by itself, since the run has ended
    held: str = ""  # kind of `Held`, "" while it writes
    reason: str = ""  # of its failure


class Producers:
    """`num` producers of the live run `folder`, as processes that die with this one. 0: none.

    `shards` is the number of shards that they have written.
    """

    def __init__(self, root: Path, folder: Path, num: int) -> None:
        self.shards = 0
        self._root, self._folder, self._num = root, folder, num
        self._children: list[_Child] = []
        self._deaths = 0  # since the last shard
        self._ever_started = False
        self._said: dict[str, float] = {}

    def __enter__(self) -> "Producers":
        self._children = [self._start() for _ in range(self._num)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def poll(self) -> list[ProducerNote]:
        """What is new; dead producers are replaced. Cheap: made to be called at every step.

        Raises StorageError where several died in a row without a new shard, ConfigError where none can start.
        """
        notes: list[ProducerNote] = []
        for place, child in enumerate(self._children):
            is_gone = not child.process.is_alive()  # asked before reading: what it said last is read then
            for message in _messages(child):
                notes += self._hear(child, message)
            if is_gone and not child.ended:
                notes.append(self._mourned(child))
                self._children[place] = self._start()
        return notes

    @property
    def started(self) -> bool:
        """Whether any producer has come as far as to write."""
        return self._ever_started

    @property
    def ended(self) -> bool:
        """Whether every producer has seen the end of the run."""
        return all(child.ended for child in self._children)

    def close(self) -> None:
        """End the producers, in the middle of a shard too."""
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + _END_S
        for child in self._children:
            child.process.join(max(deadline - time.monotonic(), 0))
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
            child.pipe.close()
        self._children = []

    def _start(self) -> _Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(os.getpid(), self._root, self._folder, theirs), name="live-producer", daemon=True
        )
        process.start()
        theirs.close()  # so that the pipe ends with the child
        return _Child(process, ours)

    def _hear(self, child: _Child, message: str) -> list[ProducerNote]:
        kind, _, text = message.partition(":")
        match kind:
            case "started":
                child.started = self._ever_started = True
            case "shard":
                was_full, child.held = child.held == "full", ""
                self.shards += 1
                self._deaths = 0
                if was_full:
                    self._said.pop("full", None)
                    return [ProducerNote("there is room on the disk again; producers go on")]
            case "ended":
                child.ended = True
            case "failed":
                child.reason = text
            case "full":
                child.held = kind
                return self._say(kind, ProducerNote(f"a producer waits: {text}", warning=True))
            case _:
                child.held, self._deaths = kind, 0  # nothing is missing
                if all(other.held == kind for other in self._children):
                    return self._say(kind, ProducerNote(f"producers wait: {text}"))
        return []

    def _say(self, kind: str, note: ProducerNote) -> list[ProducerNote]:
        now = time.monotonic()
        if now - self._said.get(kind, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return []
        self._said[kind] = now
        return [note]

    def _mourned(self, child: _Child) -> ProducerNote:
        """What to say of a producer that died. Raises where it is time to give up."""
        child.process.join()
        child.pipe.close()
        what = f"producer {child.process.pid} {how_it_ended(child.process)}"
        if child.reason:
            what += f": {child.reason}"
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            if not self._ever_started:
                raise ConfigError(
                    "producers cannot start; in a script of your own, train below `if __name__ == '__main__':` "
                    "(producers import the script), or start them with `build-shards --live` in another terminal"
                )
            raise StorageError(
                f"{self._deaths} producers in a row died without writing a shard, the last one: {what}; "
                "mend that, then train again with --live and --resume"
            )
        return ProducerNote(f"{what}; another one takes its place", warning=True)


def _messages(child: _Child) -> list[str]:
    """What a producer has said; what a killed one left half said is dropped."""
    messages = []
    try:
        while not child.pipe.closed and child.pipe.poll():
            messages.append(child.pipe.recv_bytes().decode())
    except (EOFError, OSError):
        pass
    return messages


@dataclass
class _Speaker:
    """A producer's side of the pipe. Few, short messages: a parent that is busy for minutes never blocks it."""

    pipe: Connection
    held: str = ""

    def say(self, message: str) -> None:
        self.pipe.send_bytes(message.encode())

    def tell(self, event: Produced | Held) -> None:
        if isinstance(event, Produced):
            self.held = ""
            self.say("shard")
        elif event.kind != self.held:
            self.held = event.kind
            self.say(f"{event.kind}:{event.reason}")


def _work(parent: int, root: Path, folder: Path, pipe: Connection) -> None:
    """What a producer process does. `pipe` is its own: nobody else writes there."""
    start_worker(parent)
    # Ends through Python, which takes back half a file and the semaphores that libraries hold.
    signal.signal(signal.SIGTERM, lambda number, frame: exit_by(number, frame, 0))
    speaker = _Speaker(pipe)
    speaker.say("started")
    try:
        for event in produce(root, folder):
            speaker.tell(event)
            if isinstance(event, Held):
                time.sleep(PAUSE_S)
    except StreamfeatError as error:
        speaker.say(f"failed:{error}")
        sys.exit(error.exit_code)
    except Exception as error:
        speaker.say(f"failed:{type(error).__name__}: {error}")
        raise
    speaker.say("ended")
