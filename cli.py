"""The command line: options → config → one call → print."""

import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamfeat.config import BuildConfig, MaskPolicy, Objective
from streamfeat.errors import ConfigError, DamagedError, StreamfeatError
from streamfeat.records import validated
from train.config import ModelConfig, Preset, TrainConfig

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
# Elsewhere than in a terminal, lines are as long as they are: tables are searched and cut there.
WIDTH = None if sys.stdout.isatty() else 160
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
err = Console(stderr=True)  # everything but results: with --json, stdout holds one JSON object and nothing else
out = Console(width=WIDTH)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
_TRAIN = {name: field.default for name, field in TrainConfig.model_fields.items()}  # the options' defaults


def _show(as_json: bool, values: dict[str, Any], print_plainly: Callable[[], None]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
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
    chunk_windows: Annotated[
        int, typer.Option(help="Windows of a Zarr chunk; halved while training has < 96 chunks.")
    ] = 64,
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
    with _said_how_to_go_on("what is committed is kept; run the same command to go on"):
        finished = _with_bars(steps)
    summary = _dataset_summary(finished.manifest, Path(paths[-1])) | {
        "result": finished.note,
        "seconds": {stage: round(seconds, 3) for stage, seconds in finished.seconds.items()},
        "peak_memory_bytes": finished.peak_memory,
    }
    for name, number in summary["odd_times"].items():
        err.print(f"warning: {number:,} events are timed {name.replace('_', ' ')}; check --time-unit", **PLAIN)
    _show(as_json, summary, lambda: _print_summary(summary))


@contextlib.contextmanager
def _said_how_to_go_on(remedy: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into one line and the exit code of the signal; workers end with this process."""

    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:
        if not received:
            raise
        # DuckDB answers an interrupted query with an error of its own.
        err.print(f"stopped; {remedy}", **PLAIN)
        raise SystemExit(128 + received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
                bars.console.print(step.note, **PLAIN)
                continue
            if step.stage not in rows:
                rows[step.stage] = bars.add_task(step.stage, total=step.total, unit=step.unit, rate="")
            task = bars.tasks[rows[step.stage]]
            rate = f"{step.done / max(task.elapsed or 0, 1e-3):,.0f}/s"
            bars.update(rows[step.stage], completed=step.done, rate=rate)
    raise AssertionError("a build ends with Finished")


def _dataset_summary(manifest: Any, root: Path) -> dict[str, Any]:
    training, validation = manifest.splits["training"], manifest.splits["validation"]
    window_bytes = sum(file.size for file in manifest.files() if file.path.startswith("windows.zarr/training/0/"))
    num_tokens = max(training.windows * manifest.schema_.window_len, 1)
    rejected = {name.removeprefix("rejected_"): number for name, number in manifest.cleaning.items()
                if name.startswith("rejected_")}  # fmt: skip
    left_out = {name: number for name, number in manifest.cleaning.items()
                if number and name != "rows" and not name.startswith(("rejected_", "odd_"))}  # fmt: skip
    odd_times = {name.removeprefix("odd_"): number for name, number in manifest.cleaning.items()
                 if number and name.startswith("odd_")}  # fmt: skip
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
        "odd_times": odd_times,  # kept, but likely of another unit or a wrong clock
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
    table = Table(title=escape(title), show_header=False, title_justify="left")
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
    window: Annotated[int | None, typer.Option(min=0, help="Show the tokens of this window of the dataset.")] = None,
    objective: Annotated[str, typer.Option(help="causal or masked: whose targets and masks to show.")] = "causal",
    mask_policy: Annotated[str, typer.Option(help="disjoint or seed (masked objective).")] = "disjoint",
    split: Annotated[str, typer.Option(help="training or validation.")] = "training",
    epoch: Annotated[int, typer.Option(min=0, help="Whose masks (and packing) to show.")] = 0,
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 0,
    as_json: Json = False,
) -> None:
    """Print what a dataset or a run is; with --window, its tokens, segments, targets and masks with raw ids."""
    from streamfeat.config import StreamConfig
    from streamfeat.store.manifest import load_manifest

    if (path / "config.json").is_file():
        if window is not None:
            raise ConfigError(f"{path}: is a run; --window belongs to a dataset")
        _inspect_run(path, as_json)
        return
    manifest = load_manifest(path)
    if window is None:
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


def _inspect_run(path: Path, as_json: bool) -> None:
    """What a run is, and how far it got."""
    from train.metrics import read_metrics
    from train.run import read_record

    record = read_record(path)
    lines = read_metrics(path)
    last = {kind: next((line for line in reversed(lines) if line["kind"] == kind), None)
            for kind in ("train", "validation")}  # fmt: skip
    summary = {
        "run": str(path),
        **record.model_dump(mode="json"),
        "last_step": last["train"],
        "validation": last["validation"],
    }
    _show(as_json, summary, lambda: _print_summary(summary))


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
            out.print(str(problem), **PLAIN)
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
    as_json: Json = False,
) -> None:
    """Invent watch histories of two media, with structure that a model can learn."""
    from streamfeat.events.synthetic import write_synthetic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_synthetic(path, num_users=users, num_events=events, seed=seed)
    note = f"{path}: {events:,} invented events of {users:,} users"
    _show(
        as_json, {"file": str(path), "users": users, "events": events, "seed": seed}, lambda: out.print(note, **PLAIN)
    )


@app.command()
def train(
    ctx: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset that build-shards made.")],
    run: Annotated[Path, typer.Option(help="Folder of the run: configuration, metrics, checkpoints.")],
    objective: Annotated[Objective, typer.Option(help="Predict the next event, or masked ones.")] = _TRAIN["objective"],
    mask_policy: Annotated[MaskPolicy, typer.Option(help="How the masked objective masks.")] = _TRAIN["mask_policy"],
    preset: Annotated[Preset, typer.Option(help="Size of the model; every field can be overridden.")] = "tiny",
    layers: Annotated[int | None, typer.Option(help="Blocks. Default: the preset's.")] = None,
    width: Annotated[int | None, typer.Option(help="Of the residual stream. Default: the preset's.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads. Default: the preset's.")] = None,
    feed_forward: Annotated[float | None, typer.Option(help="Hidden width over width. Default: 2.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of values dropped. Default: the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak. Default: the preset's.")] = None,
    beta_1: Annotated[float, typer.Option(help="AdamW: decay of the mean gradient.")] = _TRAIN["beta_1"],
    beta_2: Annotated[float, typer.Option(help="AdamW: decay of the mean squared gradient.")] = _TRAIN["beta_2"],
    weight_decay: Annotated[float, typer.Option(help="AdamW: on matrices only.")] = _TRAIN["weight_decay"],
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient.")] = _TRAIN["clip"],
    final_learning_rate: Annotated[float, typer.Option(help="Share of the peak that the rate ends at.")] = _TRAIN[
        "final_learning_rate"
    ],
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch, rounded to windows.")] = _TRAIN["batch_tokens"],
    micro_batch_tokens: Annotated[int, typer.Option(help="Tokens of one forward pass; 0: the whole batch.")] = _TRAIN[
        "micro_batch_tokens"
    ],
    steps: Annotated[int, typer.Option(help="Optimizer updates; 0: as --epochs says.")] = _TRAIN["steps"],
    epochs: Annotated[int, typer.Option(help="Passes over the training windows.")] = _TRAIN["epochs"],
    seed: Annotated[int, typer.Option(help="Of order, masks, initial weights, dropout.")] = _TRAIN["seed"],
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = _TRAIN["validate_every"],
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = _TRAIN["checkpoint_every"],
    threads: Annotated[int, typer.Option(help="Threads that read and prepare data.")] = _TRAIN["threads"],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is there.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard too (an extra).")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on a dataset: OUT --run RUN. Ctrl-C saves and says how to go on."""
    fields = TrainConfig.model_fields.keys() | ModelConfig.model_fields.keys()
    # Only what was typed: a default is no wish, and a resumed run keeps what it was started with.
    given = {
        name: ctx.params[name]
        for name in fields & ctx.params.keys()
        if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    with _stop_on_signals() as received:
        from train.loop import train as run_training

        steps_of_run = run_training(
            dataset, run, given,
            resume=resume, overwrite=overwrite, tensorboard=tensorboard, stop=lambda: bool(received),
        )  # fmt: skip
        summary = _follow_training(steps_of_run)
    _show(as_json, summary, lambda: _print_training(summary))
    if summary["result"] == "stopped":
        again = shlex.join(["python", "cli.py", "train", str(dataset), "--run", str(run), "--resume"])
        err.print(f"stopped after step {summary['step']:,}; go on with: {again}", **PLAIN)
        raise typer.Exit(128 + received[0])


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """Signals that asked the run to stop. A second one ends the process at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.append(number)
        os.write(2, b"\nfinishing the step and saving; once more to quit at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow_training(records: Iterator[Any]) -> dict[str, Any]:
    """Drain a run, a progress bar on stderr; returns its summary."""
    from train.progress import Finished, Note, Saved, Started, Stepped, Validated

    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(elapsed_when_finished=True), console=err,
    )  # fmt: skip
    summary: dict[str, Any] = {"validation": None, "checkpoint": None}
    with bar:
        for record in records:
            match record:
                case Note():
                    style = "yellow" if record.warning else None
                    bar.print(("warning: " if record.warning else "") + record.text, style=style, markup=False)
                case Started():
                    bar.console.print(_training_title(record), **PLAIN)
                    bar.add_task("", total=record.num_steps, completed=record.step, status="")
                    summary |= {"run": str(record.run), "steps": record.num_steps, "baselines": record.baselines,
                                "validation_users": record.validation_users}  # fmt: skip
                case Stepped():
                    status = (f"loss {_number(record.loss)}  {record.tokens_per_s:,.0f} tokens/s  "
                              f"waiting {record.wait_share:.0%}")  # fmt: skip
                    bar.update(bar.task_ids[0], completed=record.step, status=status)
                case Validated():
                    tasks = ", ".join(f"{task} {_number(loss)}" for task, loss in record.losses.items())
                    line = f"step {record.step:,}: validation loss {_number(record.loss)} ({tasks})"
                    bar.console.print(line, **PLAIN)
                    summary["validation"] = {"step": record.step, "loss": record.loss, "losses": record.losses}
                case Saved():
                    summary["checkpoint"] = str(record.path)
                case _:
                    summary |= {"step": record.step}
                    summary["result"] = "finished" if isinstance(record, Finished) else "stopped"
                    if isinstance(record, Finished) and (last := record.validated):
                        summary["validation"] = {"step": last.step, "loss": last.loss, "losses": last.losses}
    return summary


def _training_title(started: Any) -> str:
    tokens = started.batch_windows * started.window_len
    micro = started.micro_batch_windows * started.window_len
    parts = [
        f"{started.run}: {started.num_parameters:,} parameters on {started.device}",
        f"batches of {started.batch_windows:,} windows × {started.window_len:,} = {tokens:,} tokens"
        + (f" in passes of {micro:,}" if micro < tokens else ""),
        f"{started.num_steps:,} steps, {started.steps_per_epoch:,} an epoch",
    ]
    return "; ".join(parts)


def _print_training(summary: dict[str, Any]) -> None:
    validation = summary["validation"]
    if validation is None:
        return
    table = Table(title=f"{summary['run']}: validation after step {validation['step']:,}", title_justify="left")
    for column in ("task", "loss", "baseline", "users"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, loss in validation["losses"].items():
        baseline = "popularity" if task.endswith("_watch") else "mean rating"
        table.add_row(task, _number(loss), f"{_number(summary['baselines'][task])} ({baseline})",
                      f"{summary['validation_users'][task]:,}")  # fmt: skip
    out.print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def main() -> None:
    """The one edge where errors that a user can fix become messages and exit codes."""
    try:
        app()
    except StreamfeatError as error:
        err.print(f"error: {error}", **PLAIN)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
