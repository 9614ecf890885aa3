"""M tokens/s of shuffled batches of 64 windows × 1024 tokens, beside a memory-mapped array of packed records.

    python benchmarks/stream.py [--windows 4096] [--epochs 3]

The yardstick is the limit of what a page cache gives: `np.memmap` of one dense record per window, 20 arrays of 4
bytes per token as the original stores its features, gathered in shuffled order into a reused batch. Ours decodes
compressed chunks, checks them and makes the targets, in one process. Writes benchmarks/results/stream.json.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results import write_results

from streamfeat import WindowStream, load_manifest

WINDOW_LEN = 1024
BATCH_WINDOWS = 64
ARRAYS = 20
CLI = Path(__file__).parent.parent / "cli.py"


def make_dataset(folder: Path, num_windows: int) -> Path:
    """A dataset of about `num_windows` training windows of 1024 tokens."""
    events = folder / "events.parquet"
    num_events = num_windows * WINDOW_LEN
    for command in (
        ["invent", str(events), "--users", str(num_events // 150), "--events", str(num_events)],
        ["build-shards", str(events), str(folder / "data")],
    ):
        subprocess.run([sys.executable, str(CLI), *command], check=True, stdout=subprocess.DEVNULL)
    return folder / "data"


def read_packed(packed: np.memmap, order: np.ndarray, batch: np.ndarray) -> int:
    """One epoch over packed records, each batch gathered into `batch`. Returns the tokens read."""
    for first in range(0, len(order) - BATCH_WINDOWS + 1, BATCH_WINDOWS):
        for row, window in enumerate(order[first : first + BATCH_WINDOWS]):
            batch[row] = packed[window]
    return len(order) // BATCH_WINDOWS * BATCH_WINDOWS * WINDOW_LEN


def read_stream(stream: WindowStream) -> int:
    """One epoch of batches. Returns the tokens read."""
    return sum(int((batch["window"] >= 0).sum()) for batch in stream) * WINDOW_LEN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_dataset(folder, options.windows)
        manifest = load_manifest(data)
        num_windows = manifest.splits["training"].windows
        stored = sum(file.size for file in manifest.files() if file.path.startswith("windows.zarr/training/0/"))
        record = (ARRAYS, WINDOW_LEN)
        packed = np.memmap(folder / "packed.bin", np.float32, "w+", shape=(num_windows, *record))
        packed[:] = 1.0
        batch = np.empty((BATCH_WINDOWS, *record), np.float32)
        sources = {
            "np.memmap, one packed record per window": lambda epoch: read_packed(
                packed, np.random.default_rng(epoch).permutation(num_windows), batch
            )
        }
        streams = {}
        for objective in ("causal", "masked"):
            for threads in (1, 2):
                key = f"WindowStream, {objective}, {threads} thread{'s' * (threads > 1)}"
                streams[key] = WindowStream(data, objective=objective, batch_windows=BATCH_WINDOWS, threads=threads)
                sources[key] = lambda epoch, key=key: read_stream(streams[key])
        rates: dict[str, list[float]] = {key: [] for key in sources}
        for epoch in range(options.epochs + 1):
            for key, read in sources.items():
                started = time.perf_counter()
                tokens = read(epoch)
                if epoch:  # the first epoch warms the page cache and every buffer
                    rates[key].append(tokens / (time.perf_counter() - started) / 1e6)
    limit = statistics.median(rates["np.memmap, one packed record per window"])
    rows = [{"name": "windows", "value": num_windows, "unit": f"windows of {WINDOW_LEN} tokens"}]
    for key, values in rates.items():
        rows.append({"name": key, "value": statistics.median(values), "unit": "M tokens/s"})
        if key in streams:
            rows.append({"name": f"{key}: ratio to memmap", "value": statistics.median(values) / limit, "unit": ""})
    rows.append({"name": "np.memmap", "value": 4 * ARRAYS, "unit": "bytes/token on disk"})
    rows.append({"name": "shards", "value": stored / (num_windows * WINDOW_LEN), "unit": "bytes/token on disk"})
    write_results("stream", rows)


if __name__ == "__main__":
    main()
