"""Writes the numbers of `metrics.jsonl` for TensorBoard, too. It needs the extra `tensorboard`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class ScalarWriter(Protocol):
    """The methods of torch's SummaryWriter that this project uses."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Adds one point to the curve `tag`."""

    def close(self) -> None:
        """Writes all points and closes the file."""


def open_tensorboard(folder: Path, first_step: int) -> ScalarWriter:
    """A writer into `folder`. Points of an earlier process from `first_step` on are hidden."""
    from torch.utils.tensorboard import SummaryWriter

    writer: ScalarWriter = SummaryWriter(str(folder), purge_step=first_step)
    return writer


def write_scalars(writer: ScalarWriter, kind: str, step: int, values: Mapping[str, float | None]) -> None:
    """Adds a point to the curve `<kind>/<name>` for each finite value."""
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            writer.add_scalar(f"{kind}/{name}", value, step)
