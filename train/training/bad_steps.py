"""`bad-steps.jsonl`: the batches whose loss or gradient was not finite, so that a user can inspect them.

A line holds `step`, `epoch`, `windows` by rank, `not_finite` (which values: tasks, `gradient`), `losses`,
`gradient_norm`, `learning_rate`, and `stream`: a `WindowStream` with this state yields that batch next. A resumed run
appends. If a step occurs twice, its later line counts.
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
    """Appends one line. `windows` (global batch,) are those of all ranks, rank by rank; -1 for an empty slot.

    Raises StorageError if the line cannot be written (no part of it stays), and the errors of `open_lines`.
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
