"""`metrics.jsonl`: one line for each step and each validation, appended at once, with all digits.

A resumed run appends. If a step occurs twice, its later line counts.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic import ConfigDict, Field

from streamfeat.errors import storage_errors
from streamfeat.records import Frozen, read_back
from streamfeat.store.files import open_below, open_to_append
from train.runs.tensorboard import ScalarWriter, write_scalars

METRICS = "metrics.jsonl"

Kind = Literal["train", "validation"]
Line = dict[str, Any]


class _MetricsLine(Frozen):
    """A line as it stands in the file; each value is a number, or null where it was not finite."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int | float | None] = Field(init=False)

    kind: Kind
    step: int = Field(ge=0, le=2**48)


class MetricsLog:
    """The metrics of a run, open for appending. Raises as `open_lines`."""

    def __init__(self, run: Path, scalars: ScalarWriter | None = None) -> None:
        self.path = run / METRICS
        self._scalars = scalars  # gets the same values
        self._file = open_lines(self.path)

    def append(self, kind: Kind, step: int, values: Mapping[str, float | None]) -> None:
        """Appends one line: `kind`, `step`, then `values`. A value that is not finite becomes null.

        Raises StorageError if it cannot be written; no part of the line stays.
        """
        line: Line = {"kind": kind, "step": step}
        line |= {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
        append_line(self._file, self.path, line)
        if self._scalars is not None:
            write_scalars(self._scalars, kind, step, values)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def read_metrics(run: str | Path) -> list[Line]:
    """The lines of a run by step; the training line of a step comes before its validation line.

    Empty if the run has no metrics. Raises DamagedError for a line that is not a metrics line, and if metrics.jsonl is
    not an ordinary file.
    """
    path = Path(run) / METRICS
    try:
        with storage_errors(path), os.fdopen(open_below(Path(run), METRICS), "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return []
    lines: dict[tuple[int, str], Line] = {}
    *whole, torn = content.split(b"\n")
    del torn  # empty, or cut off by a kill
    for number, text in enumerate(whole, start=1):
        line = read_back(_MetricsLine, text, f"{path}: line {number} is not a metrics line", "delete that line")
        lines[line.step, line.kind] = line.model_dump()
    return [lines[key] for key in sorted(lines)]


def open_lines(path: Path) -> FileIO:
    """Opens the file of JSON lines at `path` for appending; creates it if missing.

    The file has no buffer: a buffer would try to write again when the file is closed after a full disk. Raises
    StorageError if it cannot be opened, DamagedError if it is a link or not an ordinary file.
    """
    file = FileIO(open_to_append(path, "run the same command again"), "a+")
    with storage_errors(path):
        try:
            _drop_torn_line(file)
        except BaseException:
            file.close()
            raise
    return file


def append_line(file: FileIO, path: Path, line: Line) -> None:
    """Appends the whole `line` to `file` at `path`, or raises StorageError and appends nothing."""
    left = (json.dumps(line, allow_nan=False) + "\n").encode()
    with storage_errors(path):
        end = os.fstat(file.fileno()).st_size
        try:
            while left:  # a disk that fills up writes a part first, and raises an error at the next call
                left = left[file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):  # if it fails, the next `open_lines` removes the partial line
                file.truncate(end)
            raise


def _drop_torn_line(file: FileIO) -> None:
    """Removes a line without an end, which a kill in the middle of a write leaves. A new line would continue it."""
    size = os.fstat(file.fileno()).st_size
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        file.seek(0)
        file.truncate(file.readall().rfind(b"\n") + 1)
        os.fsync(file.fileno())
