"""The command `export-features`: calls `export_steps`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from streamfeat.config import AskedConfig, Objective
from streamfeat.errors import ConfigError
from streamfeat.progress_bars import shown
from streamfeat_cli.console import Json, print_summary, show
from streamfeat_cli.declaration import Dataset, Next, command
from streamfeat_cli.options import Options
from streamfeat_cli.signals import says_how_to_continue

if TYPE_CHECKING:
    from streamfeat.export.export import Exported


class ExportOptions(AskedConfig):
    """Which features are written, in which form, and by how many processes."""

    objective: Objective | None = Field(default=None, description="Which masks and targets to write; required.")
    epoch: int = Field(default=0, ge=0, le=2**31, description="Which packing and masks to write.")
    workers: int = Field(default=0, ge=0, description="Worker processes; 0: one per core.")
    hdf5: bool = Field(default=False, description="Write one HDF5 file per shard (an extra).")


@command(
    "export-features",
    Options(ExportOptions),
    examples=(
        "export-features data features --objective causal",
        "export-features data features --objective masked --split validation",
        "export-features data folder --objective masked --hdf5",
    ),
)
def export_features(
    dataset: Dataset,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Zarr group to write, or folder of HDF5 files.")],
    options: ExportOptions,
    as_json: Json = False,
) -> Next:
    """Write what a model would see and be asked as plain arrays, under the names of the original notebook."""
    from streamfeat.export import export_steps

    if options.objective is None:
        raise ConfigError("export-features needs an objective: give --objective causal or masked")
    asked = options.model_dump() | {"workers": options.workers or len(os.sched_getaffinity(0))}
    steps = export_steps(dataset, dest, **asked)
    with says_how_to_continue("what is committed is kept; run the same command to continue"):
        (finished,) = shown(steps)
        summary = _summary(dataset, finished)
        show(as_json, summary, lambda: print_summary(summary))
    return "train", dataset, "RUN"


def _summary(dataset: Path, finished: "Exported") -> dict[str, Any]:
    values = asdict(finished)
    values = {name.removeprefix("num_") if name != "num_bytes" else name: x for name, x in values.items()}
    values = {"dataset": str(dataset), "result": values.pop("note"), "features": str(values.pop("dest")), **values}
    return values | {"size_bytes": values.pop("num_bytes"), "peak_memory_bytes": values.pop("peak_memory") or None}
