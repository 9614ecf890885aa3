"""Producers that are really killed, at the worst moments. Module-level functions, because spawned processes import
them."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from streamfeat.live.folder import start_run
from streamfeat.live.producer import produce
from streamfeat.packings import windows
from streamfeat.store.manifest import load_manifest


def spawned(target: Callable[..., None], *args: Any) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    return process


def die_before_the_receipt(root: Path, folder: Path, num_shards: int) -> None:
    """Writes some shards, then the files of one more, and dies."""

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    maker = produce(root, folder)
    for _ in range(num_shards):
        next(maker)
    windows.commit_receipt = die  # type: ignore[assignment]
    next(maker)


def die_between_two_files(root: Path, folder: Path, num_shards: int) -> None:
    """Writes some shards, then three files of one more and a part of the fourth, and dies."""
    maker = produce(root, folder)
    for _ in range(num_shards):
        next(maker)
    write, written = windows.write_shard, []

    def last(*args: Any) -> Any:
        if len(written) == 3:
            group, spec, shard = args[1:4]
            left = folder / group / spec.shard_file(shard)
            left.parent.mkdir(parents=True, exist_ok=True)
            (left.parent / f".0.{os.getpid()}.{'0' * 32}.tmp").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(args)
        return write(*args)

    windows.write_shard = last  # type: ignore[assignment]
    next(maker)


def train_and_die(root: Path, said: Any) -> None:
    """Starts a run, writes two of its shards, prints its folder, and is killed."""
    manifest = load_manifest(root)
    with start_run(
        root, manifest, seed=3, batch_windows=8, world_size=1, start=5, stop=30, disk_bytes=10**9, producers=1
    ) as folder:
        maker = produce(root, folder)
        next(maker), next(maker)
        said.send(str(folder))
        os.kill(os.getpid(), signal.SIGKILL)
