"""TensorBoard, an extra: the same numbers as `metrics.jsonl`, for those who like to watch them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class ScalarWriter(Protocol):
    """What this project uses of torch's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """One point of one curve."""

    def close(self) -> None:
        """Write what is left."""


def open_tensorboard(folder: Path, first_step: int) -> ScalarWriter:
    """A writer below `folder`; points from `first_step` on that an earlier try left are hidden."""
    from torch.utils.tensorboard import SummaryWriter

    writer: ScalarWriter = SummaryWriter(str(folder), purge_step=first_step)
    return writer


def write_scalars(writer: ScalarWriter, kind: str, step: int, values: Mapping[str, float | None]) -> None:
    """One point per value that is a finite number, under `<kind>/<name>`."""
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            writer.add_scalar(f"{kind}/{name}", value, step)
