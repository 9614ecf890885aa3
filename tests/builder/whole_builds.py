"""The files of an undisturbed build of a few users, to compare with; and commands as users type them."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from invented_events import invent_events, write_csv

from streamfeat.builder.coordinator import build_shards

HOUSE = Path(__file__).parents[2]
OPTIONS: dict[str, Any] = {"window_len": 16, "chunk_windows": 1, "shard_windows": 16, "packings": 2}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def undisturbed(folder: Path, **options: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    """An event file, the options, and the digests of the dataset that they give."""
    events = str(write_csv(folder / "e.csv", invent_events(seed=4, num_users=120, media={"a": 30})))
    options = OPTIONS | options
    build_shards([events], folder / "whole", **options)
    return events, options, digests(folder / "whole")


def build_command(events: str, out: Path, options: dict[str, Any], workers: int) -> list[str]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return [sys.executable, str(HOUSE / "cli.py"), "build-shards", events, str(out), f"--workers={workers}", *words]
