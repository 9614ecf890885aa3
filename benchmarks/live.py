"""Live training: the share of waiting, and the disk in use against its bound, with fast and with throttled producers.

    python benchmarks/live.py [--windows 8192] [--epochs 3] [--batch-ms 50] [--pause-ms 300]

The consumer reads batches of 64 windows × 1024 tokens and takes a fixed time for each, as a trainer would. A throttled
producer pauses after each shard. Disk in use is what `du` says of OUT/live, every 50 ms. Writes
benchmarks/results/live.json.
"""

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from results import write_results

from streamfeat import WindowStream, load_manifest
from streamfeat.live.folder import start_run
from streamfeat.live.live_source import LiveSource
from streamfeat.live.producer import Held, produce
from streamfeat.live.schedule import least_disk_bytes, max_shard_bytes
from streamfeat.workers.process import start_worker

WINDOW_LEN = 1024
BATCH_WINDOWS = 64
SHARD_WINDOWS = 256
CLI = Path(__file__).parent.parent / "cli.py"


def make_dataset(folder: Path, num_windows: int) -> Path:
    """A dataset of about `num_windows` training windows of 1024 tokens, with one packing for comparison."""
    events = folder / "events.parquet"
    num_events = num_windows * WINDOW_LEN
    build = ["build-shards", str(events), str(folder / "data")]
    for command in (
        ["invent", str(events), "--users", str(num_events // 150), "--events", str(num_events)],
        [*build, "--shard-windows", str(SHARD_WINDOWS), "--chunk-windows", "16"],
    ):
        subprocess.run([sys.executable, str(CLI), *command], check=True, stdout=subprocess.DEVNULL)
    return folder / "data"


def work(parent: int, root: Path, folder: Path, pause_s: float) -> None:
    """A producer that pauses after each shard."""
    start_worker(parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for event in produce(root, folder):
        time.sleep(0.02 if isinstance(event, Held) else pause_s)


def disk_usage(folder: Path) -> int:
    """Bytes of a folder, as `du` counts them. Files may be created and deleted meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in [".", *names]:
            try:
                total += (Path(path) / name).lstat().st_blocks * 512
            except FileNotFoundError:  # deleted meanwhile
                continue
    return total


def measure(folder: Path, pipe: Connection) -> None:
    """Runs in a process of its own: sends (seconds, bytes) every 50 ms until it is told to stop."""
    disk = []
    pipe.send("ready")
    while not pipe.poll(0.05):
        disk.append((time.monotonic(), disk_usage(folder)))
    pipe.send(disk)


@dataclass
class Measured:
    """The measurements of one run."""

    first_batch_s: float
    seconds: float  # since the first batch
    for_shards_s: float  # the part spent waiting for shards
    for_batches_s: float  # the part spent waiting for batches
    num_batches: int
    disk: list[tuple[float, int]]  # seconds, bytes
    bound: int


def run_live(root: Path, *, epochs: int, batch_s: float, pause_s: float) -> Measured:
    """Read `epochs` live epochs with one producer."""
    manifest = load_manifest(root)
    bound = least_disk_bytes(manifest, BATCH_WINDOWS, 1)
    steps = -(-manifest.splits["training"].windows // BATCH_WINDOWS)
    with start_run(
        root,
        manifest,
        seed=1,
        batch_windows=BATCH_WINDOWS,
        world_size=1,
        start=0,
        stop=epochs * steps,
        disk_bytes=bound,
        producers=1,
    ) as folder:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        measurer = context.Process(target=measure, args=(root / "live", theirs))
        measurer.start()
        ours.recv()
        worker = context.Process(target=work, args=(os.getpid(), root, folder, pause_s))
        began = time.monotonic()
        worker.start()
        try:
            with (
                LiveSource(root, folder, manifest, 0) as source,
                WindowStream(root, objective="causal", batch_windows=BATCH_WINDOWS, seed=1, source=source) as stream,
            ):
                measured = read(source.ready, stream, epochs * steps, batch_s)
        finally:
            worker.terminate()
            worker.join()
            ours.send("enough")
            disk = [(at - began, used) for at, used in ours.recv()]
            measurer.join()
    measured.disk, measured.bound = disk, bound
    return measured


def read(ready: Callable[[int], bool], stream: WindowStream, num_batches: int, batch_s: float) -> Measured:
    """Reads so many batches, with `batch_s` seconds of work on each."""
    began = time.perf_counter()
    for_shards: list[float] = []
    for_batches: list[float] = []
    batches = iter(stream)
    while stream.position < num_batches:
        asked = time.perf_counter()
        while not ready(stream.position):
            time.sleep(0.002)
        there = time.perf_counter()
        if next(batches, None) is None:
            batches = iter(stream)
            continue
        for_shards.append(there - asked)
        for_batches.append(time.perf_counter() - there)
        time.sleep(batch_s)
    first_s = for_shards[0] + for_batches[0]
    seconds = time.perf_counter() - began - first_s
    return Measured(first_s, seconds, sum(for_shards[1:]), sum(for_batches[1:]), num_batches, [], 0)


def run_built(root: Path, *, epochs: int, batch_s: float) -> Measured:
    """The same reading of a packing that was built beforehand."""
    with WindowStream(root, objective="causal", batch_windows=BATCH_WINDOWS, seed=1) as stream:
        return read(lambda position: True, stream, epochs * stream.steps_per_epoch, batch_s)


def rows_of(name: str, measured: Measured) -> list[dict[str, object]]:
    seconds = measured.seconds
    rows: list[dict[str, object]] = [
        {"name": f"{name}: share of waiting for shards", "value": measured.for_shards_s / seconds, "unit": ""},
        {"name": f"{name}: share of waiting for batches", "value": measured.for_batches_s / seconds, "unit": ""},
        {"name": f"{name}: first batch after", "value": measured.first_batch_s, "unit": "s"},
        {"name": f"{name}: batches", "value": measured.num_batches, "unit": "batches"},
        {"name": f"{name}: wall from the first batch on", "value": seconds, "unit": "s"},
    ]
    if not measured.disk:
        return rows
    shown = [[round(at, 2), round(used / 1e6, 1)] for at, used in measured.disk[:: len(measured.disk) // 40 + 1]]
    return [
        *rows,
        {"name": f"{name}: most disk in use", "value": max(used for _, used in measured.disk) / 1e6, "unit": "MB"},
        {"name": f"{name}: bound", "value": measured.bound / 1e6, "unit": "MB"},
        {"name": f"{name}: disk in use over time", "value": shown, "unit": "[s, MB]"},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-ms", type=float, default=50)
    parser.add_argument("--pause-ms", type=float, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = make_dataset(Path(name), options.windows)
        manifest = load_manifest(root)
        counts = manifest.splits["training"]
        rows: list[dict[str, object]] = [
            {"name": "windows", "value": counts.windows, "unit": f"windows of {WINDOW_LEN} tokens"},
            {"name": "shards of a packing", "value": -(-counts.windows // counts.shard_windows), "unit": "shards"},
            {"name": "largest possible shard", "value": max_shard_bytes(manifest) / 1e6, "unit": "MB"},
        ]
        pace = {"epochs": options.epochs, "batch_s": options.batch_ms / 1000}
        rows += rows_of("built beforehand", run_built(root, **pace))
        rows += rows_of("fast producer", run_live(root, **pace, pause_s=0))
        throttled = run_live(root, **pace, pause_s=options.pause_ms / 1000)
        rows += rows_of(f"throttled producer ({options.pause_ms:g} ms a shard)", throttled)
    write_results("live", rows)


if __name__ == "__main__":
    main()
