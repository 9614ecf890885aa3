"""Producers apart from the trainer: wait for a live run, write its shards, stop when it ends."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamfeat.live.folder import clean_up, living_runs
from streamfeat.live.producers import Producers
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest

LOOK_S = 0.2  # how often to look for a run, and after the producers


@dataclass(frozen=True)
class Waiting:
    """No run lives on this dataset yet. Told once."""


@dataclass(frozen=True)
class Joined:
    """The producers begin to work for this run."""

    run_id: str


@dataclass(frozen=True)
class Served:
    """So many shards were written so far; told when the number has changed."""

    num_shards: int


@dataclass(frozen=True)
class Ended:
    """The run has ended, and with it the work."""

    run_id: str
    num_shards: int


def serve(root: Path, workers: int) -> Iterator[Waiting | Joined | Served | Note | Ended]:
    """Write for the newest living run on the dataset `root`, with `workers` processes, until it ends.

    Runs on other data are named and left alone. Raises what `load_manifest` and `Producers.poll` raise.
    """
    fingerprint = load_manifest(root).fingerprint
    folder = yield from _wait_for_run(root, fingerprint)
    yield Joined(folder.name)
    num_shards = 0
    with Producers(root, folder, workers) as producers:
        while not producers.ended:
            yield from producers.poll()
            if producers.shards != num_shards:
                num_shards = producers.shards
                yield Served(num_shards)
            time.sleep(LOOK_S)
    clean_up(root)
    yield Ended(folder.name, num_shards)


def _wait_for_run(root: Path, fingerprint: str) -> Generator[Waiting | Note, None, Path]:
    """The folder of the newest living run, once there is one."""
    has_said = False
    named: set[str] = set()
    while True:
        runs = living_runs(root)
        for folder, run in reversed(runs):
            if run.trial:
                continue
            if run.fingerprint == fingerprint:
                return folder
            if run.run_id not in named:
                named.add(run.run_id)
                text = f"{folder}: trains on other data ({run.fingerprint}, here {fingerprint}); left alone"
                yield Note(text, warning=True)
        if not has_said:
            has_said = True
            yield Waiting()
        time.sleep(LOOK_S)
