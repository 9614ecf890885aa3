"""The command line: options → config → one call → print."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DamagedError, StreamfeatError
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
    summary = _dataset_summary(finished.manifest, Path(paths[-1])) | {
        "result": finished.note,
        "seconds": {stage: round(seconds, 3) for stage, seconds in finished.seconds.items()},
        "peak_memory_bytes": finished.peak_memory,
    }
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


def _dataset_summary(manifest: Any, root: Path) -> dict[str, Any]:
    training, validation = manifest.splits["training"], manifest.splits["validation"]
    window_bytes = sum(file.size for file in manifest.files() if file.path.startswith("windows.zarr/training/0/"))
    num_tokens = max(training.windows * manifest.schema_.window_len, 1)
    rejected = {name.removeprefix("rejected_"): number for name, number in manifest.cleaning.items()
                if name.startswith("rejected_")}  # fmt: skip
    left_out = {name: number for name, number in manifest.cleaning.items()
                if number and name != "rows" and not name.startswith("rejected_")}  # fmt: skip
    return {
        "dataset": str(root),
        "fingerprint": manifest.fingerprint,
        "format_version": manifest.format_version,
        "users": manifest.num_users,
        "training_users": training.users,
        "validation_users": validation.users,
        "items": {scale.medium: scale.items for scale in manifest.scales},
        "events": manifest.num_events,
        "rows_read": manifest.cleaning["rows"],
        "rejected_rows": rejected,
        "rejected_file": str(root / "rejected.csv") if rejected else None,
        "left_out": left_out,
        "tied_timestamps": manifest.tied_events,
        "tie_rule": manifest.tie_rule,
        "repeat_share": manifest.repeat_share,
        "window_len": manifest.schema_.window_len,
        "packings": training.packings,
        "training_windows": training.windows,
        "validation_windows": validation.windows,
        "chunk_windows": training.chunk_windows,
        "shard_windows": training.shard_windows,
        "fill_rate": training.tokens / num_tokens,
        "bytes_per_token": window_bytes / num_tokens,
    }


def _print_summary(summary: dict[str, Any]) -> None:
    title = ": ".join(summary[name] for name in ("dataset", "run", "result") if name in summary)
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in summary.items():
        if name in ("dataset", "run", "result") or value is None or value == {}:
            continue
        label = name.removesuffix("_bytes").replace("_", " ")
        table.add_row(label, f"{value / 1e6:,.0f} MB" if name.endswith("memory_bytes") else _readable(value))
    out.print(table)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(number)}" for key, number in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A dataset, or the folder of a run.")],
    window: Annotated[int, typer.Option(help="Show the tokens of this window of the dataset.")] = -1,
    objective: Annotated[str, typer.Option(help="causal or masked: whose targets and masks to show.")] = "causal",
    mask_policy: Annotated[str, typer.Option(help="disjoint or seed (masked objective).")] = "disjoint",
    split: Annotated[str, typer.Option(help="training or validation.")] = "training",
    epoch: Annotated[int, typer.Option(help="Whose masks (and packing) to show.")] = 0,
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 0,
    as_json: Json = False,
) -> None:
    """Print what a dataset or a run is; with --window, its tokens, segments, targets and masks with raw ids."""
    from streamfeat.config import StreamConfig
    from streamfeat.store.manifest import load_manifest

    if (path / "config.json").is_file():
        _inspect_run(path, as_json)
        return
    manifest = load_manifest(path)
    if window == -1:
        summary = _dataset_summary(manifest, path)
        _show(as_json, summary, lambda: _print_summary(summary))
        return
    from streamfeat.stream.look import look_at_window

    config = validated(StreamConfig, {"objective": objective, "mask_policy": mask_policy, "split": split,
                                      "seed": seed, "batch_windows": 1}, "inspect")  # fmt: skip
    tokens = look_at_window(path, window, config, epoch=epoch)
    title = f"{path}: {split} window {window}, {objective}" + (f" ({mask_policy})" if objective == "masked" else "")
    _show(as_json, {"dataset": str(path), "window": window, "tokens": tokens}, lambda: _print_rows(title, tokens))


def _print_rows(title: str, rows: list[dict[str, str]]) -> None:
    """Rows of texts as aligned columns; plain text, so that it can be searched and cut."""
    widths = {name: min(max(len(name), *(len(row[name]) for row in rows)), 32) for name in rows[0]}
    lines = [{name: name for name in rows[0]}, *rows]
    sys.stdout.write(title + "\n")
    for row in lines:
        sys.stdout.write("  ".join(row[name][:width].ljust(width) for name, width in widths.items()).rstrip() + "\n")


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset to check.")],
    as_json: Json = False,
) -> None:
    """Recompute every checksum of a dataset; names what is missing, truncated or altered, and exits 4."""
    from streamfeat.store.manifest import load_manifest
    from streamfeat.store.verify import Checked
    from streamfeat.store.verify import verify as check

    problems = []
    with Progress(TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), console=err) as bar:
        task = bar.add_task("", total=len(load_manifest(path).files()))
        for step in check(path):
            if isinstance(step, Checked):
                bar.advance(task)
            else:
                problems.append(step)
    damaged = [problem for problem in problems if problem.kind != "foreign"]
    listed = [asdict(problem) for problem in problems]

    def print_plainly() -> None:
        for problem in problems:
            out.print(str(problem), highlight=False, markup=False, soft_wrap=True)
        out.print(f"{path}: {len(damaged)} damaged" if damaged else f"{path}: sound")

    _show(as_json, {"dataset": str(path), "sound": not damaged, "problems": listed}, print_plainly)
    if damaged:
        raise typer.Exit(DamagedError.exit_code)


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
