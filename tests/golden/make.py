"""Writes golden data with the code as it stands: run once for each format, the archives are then never touched again.

    python tests/golden/make.py tests/golden/format-1

Tests read them with all later code (`tests/test_golden.py`). Archives keep
the times of files, which the plan of a build holds.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from stream_digest import stream_digest

ROOT = Path(__file__).parents[2]
BUILD = ["--window-len", "32", "--chunk-windows", "4", "--shard-windows", "32", "--workers", "1"]


def streamfeat(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), *words]


def build_until_sorted() -> None:
    """A build that was killed after its partitions were committed."""
    process = subprocess.Popen(streamfeat("build-shards", "events.csv", "unfinished", "--packings", "200", *BUILD))
    while not list(Path("unfinished/receipts").glob("history-*.json")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("unfinished/dataset.json").exists()


def main() -> None:
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        subprocess.run(
            streamfeat("invent", "events.csv", "--users", "40", "--events", "2500", "--seed", "7"), check=True
        )
        os.utime("events.csv", (1_700_000_000, 1_700_000_000))  # whole seconds: an archive keeps no fractions
        for words in (
            ["build-shards", "events.csv", "users", "--split", "users:0.1", "--packings", "2", *BUILD],
            ["build-shards", "events.csv", "last-two", "--split", "last:2", *BUILD],
            ["train", "users", "--run", "run", "--width", "16", "--epochs", "2", "--batch-tokens", "512"],
        ):  # fmt: skip
            subprocess.run(streamfeat(*words), check=True)
        build_until_sorted()
        (out / "expected.json").write_text(json.dumps(
            {
                f"{name} {objective}": stream_digest(Path(name), objective)
                for name in ("users", "last-two") for objective in ("causal", "masked")
            }, indent=1,
        ) + "\n")  # fmt: skip
        for name in ("users", "last-two", "run", "unfinished"):
            with tarfile.open(out / f"{name}.tar.xz", "w:xz") as archive:
                archive.add(name)
                if name == "unfinished":
                    archive.add("events.csv")
        shutil.rmtree("unfinished")


if __name__ == "__main__":
    main()
