"""`bad-steps.jsonl`: which batches had a loss or gradient that was not finite, so that one can look at them.

A line holds `step`, `epoch`, `windows` by rank, `not_finite` (what was not: tasks, `gradient`), `losses`,
`gradient_norm`, `learning_rate`, and `stream`: the state that, loaded into a `WindowStream`, gives that batch next.
A resumed run appends; where a step occurs twice, its later line counts.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.runs.folder import BAD_STEPS
from train.runs.metrics import append_line, open_lines
from train.training.update import Update


def append_bad_step(
    run: Path, update: Update, windows: NDArray[np.int64], stream: dict[str, Any], *, step: int, epoch: int, ranks: int
) -> None:
    """One line. `windows` (global batch,) are those of all ranks, rank by rank, -1 where a slot was empty.

    Raises StorageError where the disk refuses, and then no half line stays; else as `open_lines`.
    """
    norm = update.gradient_norm
    line = {
        "step": step,
        "epoch": epoch,
        "windows": {str(rank): part[part >= 0].tolist() for rank, part in enumerate(np.split(windows, ranks))},
        "not_finite": update.not_finite,
        "losses": update.losses,
        "gradient_norm": norm if norm is not None and math.isfinite(norm) else None,
        "learning_rate": update.learning_rate,
        "stream": stream,
    }
    path = run / BAD_STEPS
    with open_lines(path) as file:
        append_line(file, path, line)
