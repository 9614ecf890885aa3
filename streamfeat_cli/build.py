"""The command `build-shards`: calls `build_steps`, and with --live then `serve`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.progress_bars import shown
from streamfeat_cli.console import PLAIN, Json, err, print_summary, show
from streamfeat_cli.declaration import Next, command
from streamfeat_cli.inspect import dataset_summary
from streamfeat_cli.options import Options
from streamfeat_cli.signals import says_how_to_continue


class BuildOptions(BuildConfig):
    """The configuration of a build, and options that do not change its bytes."""

    workers: int = Field(default=0, ge=0, description="Worker processes; 0: one per core.")


@command(
    "build-shards",
    Options(BuildOptions),
    examples=(
        "build-shards ratings.csv data",
        "build-shards 'logs/*.parquet' data --columns user=uid,item=iid",
        "build-shards ratings.csv data --split last:2 --packings 4",
    ),
)
def build_shards(
    events: Annotated[list[str], typer.Argument(metavar="EVENTS", help="Event files, folders, or patterns.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the dataset to make.")],
    options: BuildOptions,
    live: Annotated[
        bool, typer.Option("--live", help="No packings: then write those of a `train DATA RUN --live` while it runs.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there.")] = False,
    as_json: Json = False,
) -> Next:
    """Build a dataset of Zarr shards from event files. With --live, then serve a live training run."""
    from streamfeat.builder.coordinator import build_steps
    from streamfeat.events.odd_times import odd_times_warning

    if live and "packings" in options.model_fields_set:
        raise ConfigError("--live writes packings while a run reads them and --packings writes them now: give one")
    config = BuildConfig(**options.model_dump(include=set(BuildConfig.model_fields)))
    if live:
        config = config.model_copy(update={"packings": 0})
    num_workers = options.workers or len(os.sched_getaffinity(0))
    steps = build_steps(events, out, config, workers=num_workers, overwrite=overwrite)
    with says_how_to_continue("what is committed is kept; run the same command to continue"):
        (finished,) = shown(steps)
        summary = dataset_summary(finished.manifest, out) | {
            "result": finished.note,
            "seconds": {stage: round(seconds, 3) for stage, seconds in finished.seconds.items()},
            "peak_memory_bytes": finished.peak_memory,
        }
        for name, number in summary["odd_times"].items():
            told = odd_times_warning(finished.manifest.config, number, name.replace("_", " "))
            err.print(f"warning: {told}", **PLAIN)
        if live:
            from streamfeat.live.serve import serve

            with says_how_to_continue("the run that is being served waits; run the same command to continue"):
                (served,) = shown(serve(out, num_workers))
            summary["shards_served"] = served.num_shards
        show(as_json, summary, lambda: print_summary(summary))
    return "train", out, "RUN"
