"""`build-shards`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.progress_bars import shown
from streamfeat.records import validated
from streamfeat_cli.console import PLAIN, Json, err, print_summary, show, typed
from streamfeat_cli.inspect import dataset_summary
from streamfeat_cli.signals import said_how_to_go_on


def build_shards(
    ctx: typer.Context,
    paths: Annotated[list[str], typer.Argument(metavar="EVENTS... OUT", help="Event files or globs; last the folder.")],
    format: Annotated[str, typer.Option(help="How files are read; auto recognises each one.")] = "auto",
    columns: Annotated[str, typer.Option(help="role=column,…: user, item, timestamp, rating, …")] = "",
    time_unit: Annotated[str, typer.Option(help="auto, s, ms, us or ns: unit of numeric timestamps.")] = "auto",
    media: Annotated[str, typer.Option(help="Media, in order; others are left out. Default: all, sorted.")] = "",
    planned: Annotated[bool, typer.Option("--planned/--no-planned", help="Keep planned events as input.")] = True,
    min_item_events: Annotated[int, typer.Option(help="Drop items with fewer events.")] = 1,
    min_user_events: Annotated[int, typer.Option(help="Then drop users with fewer events.")] = 1,
    max_rejected: Annotated[float, typer.Option(help="Share of bad rows above which the build stops.")] = 0.01,
    split: Annotated[
        str, typer.Option(help="users:F: hold out a share of users; last:2: each one's last two.")
    ] = "users:0.01",
    window_len: Annotated[int, typer.Option(help="Tokens of a window.")] = 1024,
    max_document_len: Annotated[int, typer.Option(help="Crop histories to this many tokens; 0: no limit.")] = 0,
    chunk_windows: Annotated[
        int, typer.Option(help="Windows of a Zarr chunk; halved while training has < 96 chunks.")
    ] = 64,
    shard_windows: Annotated[int, typer.Option(help="Windows of a Zarr shard, the unit of writing.")] = 2048,
    compression: Annotated[str, typer.Option(help="lz4 (local disks), zstd (networks) or none.")] = "lz4",
    seed: Annotated[int, typer.Option(help="Seed of split, partitions, crops and packings.")] = 20221221,
    packings: Annotated[int, typer.Option(min=0, help="Differently shuffled layouts of the training windows.")] = 1,
    live: Annotated[
        bool, typer.Option("--live", help="No packings: then write those of a `train OUT --live` while it runs.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Build a dataset of Zarr shards from event files: EVENTS... OUT. With --live, then serve a live training run."""
    from streamfeat.builder.coordinator import build_steps

    if len(paths) < 2:
        raise ConfigError(
            f"build-shards needs event files and a folder to write: EVENTS... OUT; got {paths[0]!r} alone"
        )
    if live and "packings" in typed(ctx):
        raise ConfigError("--live writes packings while a run reads them and --packings writes them now: give one")
    config = validated(BuildConfig, {
        "format": format, "columns": columns_of(columns), "time_unit": time_unit,
        "media": [name.strip() for name in media.split(",") if name.strip()], "keep_planned": planned,
        "min_item_events": min_item_events, "min_user_events": min_user_events, "max_rejected": max_rejected,
        "split": split, "window_len": window_len, "max_document_len": max_document_len or "unlimited",
        "chunk_windows": chunk_windows, "shard_windows": shard_windows, "compression": compression,
        "seed": seed, "packings": 0 if live else packings,
    }, "build-shards")  # fmt: skip
    num_workers = workers or len(os.sched_getaffinity(0))
    steps = build_steps(paths[:-1], paths[-1], config, workers=num_workers, overwrite=overwrite)
    with said_how_to_go_on("what is committed is kept; run the same command to go on"):
        (finished,) = shown(steps)
        summary = dataset_summary(finished.manifest, Path(paths[-1])) | {
            "result": finished.note,
            "seconds": {stage: round(seconds, 3) for stage, seconds in finished.seconds.items()},
            "peak_memory_bytes": finished.peak_memory,
        }
        for name, number in summary["odd_times"].items():
            err.print(f"warning: {number:,} events are timed {name.replace('_', ' ')}; check --time-unit", **PLAIN)
        if live:
            from streamfeat.live.serve import serve

            with said_how_to_go_on("the run that is being served waits; run the same command to go on"):
                (served,) = shown(serve(Path(paths[-1]), num_workers))
            summary["shards_served"] = served.num_shards
        show(as_json, summary, lambda: print_summary(summary))


def columns_of(text: str) -> dict[str, str]:
    """`user=uid,item=iid` as a mapping. Raises ConfigError for anything else."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    for role, equals, column in pairs:
        if not (role and equals and column):
            raise ConfigError(f"--columns {text!r}: {role!r} is no role=column; write user=uid,item=iid,timestamp=ts")
    return {role.strip(): column.strip() for role, _, column in pairs}
