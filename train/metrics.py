"""`metrics.jsonl`: a line per step and per validation, appended and flushed at once, every digit kept.

A resumed run appends. Where a step occurs twice, its later line counts.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from streamfeat.errors import DamagedError
from streamfeat.store.files import storage_errors
from train.tensorboard import ScalarWriter, write_scalars

METRICS = "metrics.jsonl"

Kind = Literal["train", "validation"]
Line = dict[str, Any]


class MetricsLog:
    """The metrics of a run, open for appending. Raises StorageError where the disk refuses."""

    def __init__(self, run: Path, scalars: ScalarWriter | None = None) -> None:
        self.path = run / METRICS
        self._scalars = scalars  # told the same
        with storage_errors(self.path):
            _drop_torn_line(self.path)
            self._file = self.path.open("a", encoding="utf-8")

    def append(self, kind: Kind, step: int, values: Mapping[str, float | None]) -> None:
        """One line: `kind`, `step`, then `values`; a value that is not finite becomes null."""
        line: Line = {"kind": kind, "step": step}
        line |= {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
        with storage_errors(self.path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        if self._scalars is not None:
            write_scalars(self._scalars, kind, step, values)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def read_metrics(run: str | Path) -> list[Line]:
    """The lines of a run that count, by step, the training line of a step before its validation.

    Empty where the run has none. Raises DamagedError for a line that is no metrics line.
    """
    path = Path(run) / METRICS
    try:
        with storage_errors(path):
            content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines: dict[tuple[int, str], Line] = {}
    *whole, torn = content.split(b"\n")
    del torn  # empty, or cut off by a kill
    for number, text in enumerate(whole, start=1):
        try:
            line = json.loads(text)
            lines[int(line["step"]), str(line["kind"])] = line
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise DamagedError(f"{path}: line {number} is no metrics line ({text[:60]!r}); delete that line") from None
    return [lines[key] for key in sorted(lines)]


def _drop_torn_line(path: Path) -> None:
    """A kill in the middle of a write leaves a line without an end; the next one must not continue it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
            os.fsync(file.fileno())
