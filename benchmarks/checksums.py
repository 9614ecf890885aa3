"""What checking every chunk's crc32c costs: its share of the time of reading a packing, and of a whole stream; and what
a resumed build pays for hashing the files that it finds.

    python benchmarks/checksums.py [--windows 1024] [--rounds 15]

Reads all chunks of all token fields through the direct reader, from the page cache, and adds up the time inside of the
check: both parts of a share are measured in the same seconds. Writes benchmarks/results/checksums.json.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from results import write_results

from streamfeat import WindowStream, load_manifest
from streamfeat.store import reader as reader_module
from streamfeat.store.files import size_and_digest
from streamfeat.store.reader import ArrayReader

CLI = Path(__file__).parent.parent / "cli.py"
WINDOW_LEN = 1024


def make_dataset(folder: Path, num_windows: int, compression: str) -> tuple[Path, float]:
    """A dataset of about `num_windows` training windows of 1024 tokens, and the seconds that one worker built."""
    events = folder / "events.parquet"
    num_events = num_windows * WINDOW_LEN
    if not events.exists():
        invent = ["invent", str(events), "--users", str(num_events // 150), "--events", str(num_events)]
        subprocess.run([sys.executable, str(CLI), *invent], check=True, stdout=subprocess.DEVNULL)
    build = ["build-shards", str(events), str(folder / compression), "--compression", compression, "--workers", "1"]
    built = subprocess.run([sys.executable, str(CLI), *build, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return folder / compression, sum(json.loads(built.stdout)["seconds"].values())


def hash_files(data: Path) -> tuple[float, int]:
    """Seconds of hashing every file as a resumed build does, and the bytes of the files."""
    started = time.perf_counter()
    sizes = [size_and_digest(data, str(path.relative_to(data)))[0] for path in data.rglob("*") if path.is_file()]
    return time.perf_counter() - started, sum(sizes)


@contextlib.contextmanager
def timed_checks() -> Iterator[list[float]]:
    """Seconds spent in the check of each chunk."""
    before = reader_module.checked_payload, reader_module.crc32c
    spent: list[float] = []

    def timed(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(data: Any) -> Any:
            started = time.perf_counter()
            result = check(data)
            spent.append(time.perf_counter() - started)
            return result

        return run

    reader_module.checked_payload, reader_module.crc32c = (timed(check) for check in before)
    try:
        yield spent
    finally:
        reader_module.checked_payload, reader_module.crc32c = before


def read_packing(data: Path, rounds: int) -> tuple[float, float]:
    """Seconds of reading every chunk of packing 0 so many times, and the part of them spent in the check."""
    manifest = load_manifest(data)
    readers = [
        ArrayReader(data, f"windows.zarr/training/0/{field.name}") for field in manifest.data_schema.token_fields()
    ]
    outs = [np.empty((reader.chunk_rows, *reader.shape[1:]), reader.dtype) for reader in readers]

    def read_once() -> None:
        for chunk in range(readers[0].num_chunks - 1):  # the last one may be short
            for reader, out in zip(readers, outs, strict=True):
                reader.read_chunk(chunk, out)

    read_once()  # opens the files, warms the page cache
    with timed_checks() as spent:
        started = time.perf_counter()
        for _ in range(rounds):
            read_once()
        seconds = time.perf_counter() - started
    for reader in readers:
        reader.close()
    return seconds, sum(spent)


def read_stream(data: Path) -> tuple[float, float]:
    """Seconds of one epoch of causal batches, decoded in one thread, and the part of them spent in the check."""
    with WindowStream(data, objective="causal", batch_windows=64) as stream:
        for _ in stream:
            pass
        with timed_checks() as spent:
            started = time.perf_counter()
            for _ in stream:
                pass
            return time.perf_counter() - started, sum(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        for compression in ("lz4", "zstd", "none"):
            data, build_seconds = make_dataset(Path(name), options.windows, compression)
            counts = load_manifest(data).splits["training"]
            tokens = (-(-counts.windows // counts.chunk_windows) - 1) * counts.chunk_windows * WINDOW_LEN
            seconds, inside = read_packing(data, options.rounds)
            rate = tokens * options.rounds / seconds / 1e6
            rows += [
                {"name": f"{compression}: read, checked", "value": rate, "unit": "M tokens/s"},
                {"name": f"{compression}: crc32c, share of read time", "value": inside / seconds, "unit": ""},
            ]
            if compression == "lz4":
                seconds, inside = read_stream(data)
                label = "lz4: crc32c, share of a stream's time (causal, one thread)"
                rows.append({"name": label, "value": inside / seconds, "unit": ""})
                seconds, num_bytes = hash_files(data)
                rows += [
                    {
                        "name": "lz4: SHA-256 of every file, one core",
                        "value": num_bytes / seconds / 1e9,
                        "unit": "GB/s",
                    },
                    {"name": "lz4: the same, share of the build's time", "value": seconds / build_seconds, "unit": ""},
                ]
    write_results("checksums", rows)


if __name__ == "__main__":
    main()
