"""`export-features`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamfeat.config import MaskPolicy, Objective, SplitName
from streamfeat.progress_bars import shown
from streamfeat_cli.console import Json, print_summary, show
from streamfeat_cli.signals import said_how_to_go_on

if TYPE_CHECKING:
    from streamfeat.export.export import Finished


def export_features(
    dataset: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset that build-shards made.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Zarr group to write, or folder of HDF5 files.")],
    objective: Annotated[Objective, typer.Option(help="causal or masked.")],
    mask_policy: Annotated[MaskPolicy, typer.Option(help="How the masked objective masks.")] = "disjoint",
    split: Annotated[SplitName, typer.Option(help="training or validation.")] = "training",
    epoch: Annotated[int, typer.Option(min=0, max=2**31, help="Whose packing and masks.")] = 0,
    seed: Annotated[int, typer.Option(help="The run's: of masks and hidden times.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    hdf5: Annotated[bool, typer.Option("--hdf5", help="One HDF5 file per shard (an extra).")] = False,
    as_json: Json = False,
) -> None:
    """Write what a model would see and be asked as plain arrays, under the names of the original notebook."""
    from streamfeat.export import export_steps as export

    steps = export(
        dataset, dest, objective=objective, mask_policy=mask_policy, split=split, epoch=epoch, seed=seed,
        workers=workers or len(os.sched_getaffinity(0)), hdf5=hdf5,
    )  # fmt: skip
    with said_how_to_go_on("what is committed is kept; run the same command to go on"):
        (finished,) = shown(steps)
        summary = _summary(dataset, finished)
        show(as_json, summary, lambda: print_summary(summary))


def _summary(dataset: Path, finished: "Finished") -> dict[str, Any]:
    values = asdict(finished)
    values = {name.removeprefix("num_") if name != "num_bytes" else name: x for name, x in values.items()}
    values = {"dataset": str(dataset), "result": values.pop("note"), "features": str(values.pop("dest")), **values}
    return values | {"size_bytes": values.pop("num_bytes"), "peak_memory_bytes": values.pop("peak_memory") or None}
