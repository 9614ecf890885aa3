"""Separate producers (`build-shards --live`): wait for a live run, write its shards, and stop when it ends."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamfeat.live.folder import clean_up, living_runs
from streamfeat.live.producer_processes import Producers
from streamfeat.progress import Note, Progress
from streamfeat.store.manifest import load_manifest

LOOK_S = 0.2  # time between two checks for a run and of the producers


@dataclass(frozen=True)
class Served:
    """The run has ended, and with it the work."""

    run_id: str
    num_shards: int  # shards written for the run


def serve(root: Path, workers: int) -> Iterator[Note | Progress | Served]:
    """Write for the newest living run on the dataset `root`, with `workers` processes, until it ends.

    Yields a note for each run on other data. Raises the errors of `load_manifest` and `Producers.poll`.
    """
    fingerprint = load_manifest(root).fingerprint
    folder = yield from _wait_for_run(root, fingerprint)
    yield Note(f"writing for run {folder.name}")
    num_shards = 0
    yield _progress(num_shards)
    with Producers(root, folder, workers) as producers:
        while not producers.ended:
            yield from producers.poll()
            if producers.shards != num_shards:
                num_shards = producers.shards
                yield _progress(num_shards)
            time.sleep(LOOK_S)
    clean_up(root)
    yield Note(f"run {folder.name} has ended; {num_shards:,} shards written")
    yield Served(folder.name, num_shards)


def _progress(num_shards: int) -> Progress:
    return Progress("live", num_shards, None, "shards")


def _wait_for_run(root: Path, fingerprint: str) -> Generator[Note, None, Path]:
    """Waits for a living run; returns the folder of the newest one."""
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
                text = f"{folder}: trains on other data ({run.fingerprint}, here {fingerprint}); ignored"
                yield Note(text, warning=True)
        if not has_said:
            has_said = True
            yield Note(f"waiting for a run: start `train {root} --live`")
        time.sleep(LOOK_S)
