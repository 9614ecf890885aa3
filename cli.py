"""The command line: options → config → one call → print."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, StreamfeatError
from streamfeat.records import validated

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
err = Console(stderr=True)  # everything but results: with --json, stdout holds one JSON object and nothing else
out = Console()

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
T = TypeVar("T")


def _show(as_json: bool, values: dict[str, Any], print_plainly: Callable[[], None]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
    else:
        print_plainly()


def _columns(text: str) -> dict[str, str]:
    """`user=uid,item=iid` as a mapping. Raises ConfigError for anything else."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    for role, equals, column in pairs:
        if not (role and equals and column):
            raise ConfigError(f"--columns {text!r}: {role!r} is no role=column; write user=uid,item=iid,timestamp=ts")
    return {role.strip(): column.strip() for role, _, column in pairs}


@app.command("build-shards")
def build_shards(
    paths: Annotated[list[str], typer.Argument(metavar="EVENTS... OUT", help="Event files or globs; last the folder.")],
    format: Annotated[str, typer.Option(help="How files are read; auto recognises each one.")] = "auto",
    columns: Annotated[str, typer.Option(help="role=column,…: user, item, timestamp, rating, …")] = "",
    time_unit: Annotated[str, typer.Option(help="auto, s, ms, us or ns: unit of numeric timestamps.")] = "auto",
    media: Annotated[str, typer.Option(help="Media, in order; others are left out. Default: all, sorted.")] = "",
    planned: Annotated[bool, typer.Option("--planned/--no-planned", help="Keep planned events as input.")] = True,
    min_item_events: Annotated[int, typer.Option(help="Drop items with fewer events.")] = 1,
    min_user_events: Annotated[int, typer.Option(help="Then drop users with fewer events.")] = 1,
    max_rejected: Annotated[float, typer.Option(help="Share of bad rows above which the build stops.")] = 0.01,
    split: Annotated[str, typer.Option(help="users:F holds out a share F of the users.")] = "users:0.01",
    window_len: Annotated[int, typer.Option(help="Tokens of a window.")] = 1024,
    max_document_len: Annotated[int, typer.Option(help="Crop histories to this many tokens; 0: no limit.")] = 0,
    chunk_windows: Annotated[int, typer.Option(help="Windows of a Zarr chunk, the unit of reading.")] = 64,
    shard_windows: Annotated[int, typer.Option(help="Windows of a Zarr shard, the unit of writing.")] = 2048,
    compression: Annotated[str, typer.Option(help="lz4 (local disks), zstd (networks) or none.")] = "lz4",
    seed: Annotated[int, typer.Option(help="Seed of split, partitions, crops and packings.")] = 20221221,
    packings: Annotated[int, typer.Option(help="Differently shuffled layouts of the training windows.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Build a dataset of Zarr shards from event files: EVENTS... OUT."""
    from streamfeat.build.run import build_dataset

    if len(paths) < 2:
        raise ConfigError(
            f"build-shards needs event files and a folder to write: EVENTS... OUT; got {paths[0]!r} alone"
        )
    config = validated(BuildConfig, {
        "format": format, "columns": _columns(columns), "time_unit": time_unit,
        "media": [name.strip() for name in media.split(",") if name.strip()], "keep_planned": planned,
        "min_item_events": min_item_events, "min_user_events": min_user_events, "max_rejected": max_rejected,
        "split": split, "window_len": window_len, "max_document_len": max_document_len or "unlimited",
        "chunk_windows": chunk_windows, "shard_windows": shard_windows, "compression": compression,
        "seed": seed, "packings": packings,
    }, "build-shards")  # fmt: skip
    num_workers = workers or len(os.sched_getaffinity(0))
    steps = build_dataset(paths[:-1], paths[-1], config, workers=num_workers, overwrite=overwrite)
    finished = _with_bars(steps)
    summary = _build_summary(finished, Path(paths[-1]))
    _show(as_json, summary, lambda: _print_summary(summary))


def _with_bars(steps: Iterable[Any]) -> Any:
    """Drain a build, a progress bar per stage on stderr; returns its last step."""
    from streamfeat.build.run import Finished, Recognised

    bars = Progress(
        TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(elapsed_when_finished=True), console=err,
    )  # fmt: skip
    rows: dict[str, Any] = {}
    with bars:
        for step in steps:
            if isinstance(step, Finished):
                return step
            if isinstance(step, Recognised):
                bars.print(step.note, highlight=False)
                continue
            if step.stage not in rows:
                rows[step.stage] = bars.add_task(step.stage, total=step.total, unit=step.unit, rate="")
            task = bars.tasks[rows[step.stage]]
            rate = f"{task.finished_speed or task.speed or 0:,.0f}/s"
            bars.update(rows[step.stage], completed=step.done, rate=rate)
    raise AssertionError("a build ends with Finished")


def _build_summary(finished: Any, root: Path) -> dict[str, Any]:
    manifest = finished.manifest
    training, validation = manifest.splits["training"], manifest.splits["validation"]
    window_bytes = sum(file.size for file in manifest.files() if file.path.startswith("windows.zarr/training/0/"))
    num_tokens = max(training.windows * manifest.schema_.window_len, 1)
    rejected = {name: number for name, number in manifest.cleaning.items() if name.startswith("rejected_")}
    return {
        "dataset": str(root), "result": finished.note, "fingerprint": manifest.fingerprint,
        "users": manifest.num_users, "training_users": training.users, "validation_users": validation.users,
        "items": {scale.medium: scale.items for scale in manifest.scales},
        "events": manifest.num_events, "rows_read": manifest.cleaning["rows"],
        "rejected": rejected, "rejected_file": str(root / "rejected.csv") if rejected else None,
        "left_out": {name: number for name, number in manifest.cleaning.items()
                     if number and name != "rows" and not name.startswith("rejected_")},
        "tied_timestamps": manifest.tied_events, "repeat_share": manifest.repeat_share,
        "packings": training.packings, "training_windows": training.windows,
        "validation_windows": validation.windows, "chunk_windows": training.chunk_windows,
        "fill_rate": training.tokens / num_tokens, "bytes_per_token": window_bytes / num_tokens,
        "seconds": {stage: round(seconds, 3) for stage, seconds in finished.seconds.items()},
        "peak_memory_bytes": finished.peak_memory,
    }  # fmt: skip


def _print_summary(summary: dict[str, Any]) -> None:
    table = Table(title=f"{summary['dataset']}: {summary['result']}", show_header=False, title_justify="left")
    for name, value in summary.items():
        if name in ("dataset", "result") or value is None or value == {}:
            continue
        if isinstance(value, dict):
            text = ", ".join(f"{key} {number:,}" for key, number in value.items())
        elif name == "peak_memory_bytes":
            name, text = "peak memory", f"{value / 1e6:,.0f} MB"
        elif isinstance(value, float):
            text = f"{value:.4g}"
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), text)
    out.print(table)


@app.command()
def invent(
    path: Annotated[Path, typer.Argument(help="File to write: .csv or .parquet.")],
    users: Annotated[int, typer.Option(help="Number of users.")] = 2000,
    events: Annotated[int, typer.Option(help="Number of events, about.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Invent watch histories of two media, with structure that a model can learn."""
    from streamfeat.events.synthetic import write_synthetic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_synthetic(path, num_users=users, num_events=events, seed=seed)
    err.print(f"{path}: invented histories of {users:,} users", highlight=False)


def main() -> None:
    """The one edge where errors that a user can fix become messages and exit codes."""
    try:
        app()
    except StreamfeatError as error:
        err.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
