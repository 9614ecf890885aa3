"""The command line: options → config → one call → print."""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
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
from streamfeat.errors import ConfigError, DamagedError, DataError, DivergedError, StreamfeatError
from streamfeat.records import validated
from train.config import FIELDS, Preset, TrainConfig, overridden, read_config
from train.launch import launched

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
    split: Annotated[str, typer.Option(help="users:F holds out a share F of the users.")] = "users:0.01",
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
    from streamfeat.build.run import build_dataset

    if len(paths) < 2:
        raise ConfigError(
            f"build-shards needs event files and a folder to write: EVENTS... OUT; got {paths[0]!r} alone"
        )
    if live and "packings" in _typed(ctx):
        raise ConfigError("--live writes packings while a run reads them and --packings writes them now: give one")
    config = validated(BuildConfig, {
        "format": format, "columns": _columns(columns), "time_unit": time_unit,
        "media": [name.strip() for name in media.split(",") if name.strip()], "keep_planned": planned,
        "min_item_events": min_item_events, "min_user_events": min_user_events, "max_rejected": max_rejected,
        "split": split, "window_len": window_len, "max_document_len": max_document_len or "unlimited",
        "chunk_windows": chunk_windows, "shard_windows": shard_windows, "compression": compression,
        "seed": seed, "packings": 0 if live else packings,
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
    if live:
        with _said_how_to_go_on("the run that is being served waits; run the same command to go on"):
            summary["shards_served"] = _serve(Path(paths[-1]), num_workers)
    _show(as_json, summary, lambda: _print_summary(summary))


def _serve(root: Path, workers: int) -> int:
    """Write the packings of the newest live run on a dataset until it ends; returns how many shards that were."""
    from streamfeat.live.serve import Ended, Joined, Served, Waiting, serve
    from streamfeat.live.supervise import ProducerNote

    shown = Progress(TextColumn("live"), TextColumn("{task.completed:,} shards written"), console=err)
    row = shown.add_task("", total=None)
    num_shards = 0
    with shown:
        for step in serve(root, workers):
            match step:
                case Waiting():
                    shown.console.print(f"waiting for a run: python cli.py train {root} --live --run RUN", **PLAIN)
                case Joined():
                    shown.console.print(f"writing for run {step.run_id}", **PLAIN)
                case Served():
                    shown.update(row, completed=step.num_shards)
                case ProducerNote():
                    style = "yellow" if step.warning else None
                    shown.console.print(("warning: " if step.warning else "") + step.text, style=style, **PLAIN)
                case Ended():
                    num_shards = step.num_shards
                    shown.console.print(f"run {step.run_id} has ended; {num_shards:,} shards written", **PLAIN)
    return num_shards


def _typed(ctx: typer.Context) -> dict[str, Any]:
    """The options that were typed: a default is no wish."""
    return {name: value for name, value in ctx.params.items()
            if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}  # fmt: skip


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
    # torchrun takes --run for an ambiguous --run-path of its own, wherever it stands: hence the second spelling.
    run: Annotated[
        Path | None,
        typer.Option("--run", "--run-folder", help="Folder of the run: configuration, metrics, checkpoints."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file that sets any of the options; typed ones win.")] = None,
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
    warm_up_steps: Annotated[int, typer.Option(help="Steps of rising rate, at most a tenth of all.")] = _TRAIN[
        "warm_up_steps"
    ],
    decay_share: Annotated[float, typer.Option(help="Share of the steps, at the end, of falling rate.")] = _TRAIN[
        "decay_share"
    ],
    final_learning_rate: Annotated[float, typer.Option(help="Share of the peak that the rate ends at.")] = _TRAIN[
        "final_learning_rate"
    ],
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch over all ranks, rounded to windows.")] = _TRAIN[
        "batch_tokens"
    ],
    micro_batch_tokens: Annotated[int, typer.Option(help="Tokens of one forward pass; 0: a rank's share.")] = _TRAIN[
        "micro_batch_tokens"
    ],
    steps: Annotated[int, typer.Option(help="Optimizer updates; 0: as --epochs says.")] = _TRAIN["steps"],
    epochs: Annotated[int, typer.Option(help="Passes over the training windows, at most.")] = _TRAIN["epochs"],
    monitor: Annotated[str, typer.Option(help="Validation figure that is to fall: loss, or a task's.")] = _TRAIN[
        "monitor"
    ],
    patience: Annotated[int, typer.Option(help="Stop after so many validations without a new best; 0: never.")] = (
        _TRAIN["patience"]
    ),
    seed: Annotated[int, typer.Option(help="Of order, masks, initial weights, dropout.")] = _TRAIN["seed"],
    validate_every: Annotated[int, typer.Option(help="Steps between validations; 0: every epoch.")] = _TRAIN[
        "validate_every"
    ],
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = _TRAIN["checkpoint_every"],
    keep: Annotated[int, typer.Option(help="Last checkpoints to keep, beside the best.")] = _TRAIN["keep"],
    threads: Annotated[int, typer.Option(help="Threads that read and prepare data.")] = _TRAIN["threads"],
    live: Annotated[bool, typer.Option("--live", help="Train on windows while they are written, fresh each epoch.")] = (
        False
    ),
    live_disk: Annotated[str, typer.Option(help="Bytes that live windows may take; GB is 1000 MB.")] = "20GB",
    live_workers: Annotated[str, typer.Option(help="Processes that write them; 0: `build-shards --live` does.")] = (
        _TRAIN["live_workers"]
    ),
    live_timeout: Annotated[float, typer.Option(help="Seconds without a sign of life after which one is dead.")] = (
        _TRAIN["live_timeout"]
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time ten steps, tell what a run would take, keep nothing.")
    ] = (False),
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard too (an extra).")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on a dataset: OUT --run RUN. Ctrl-C saves and says how to go on.

    On several GPUs or machines: torchrun --nproc-per-node N cli.py train OUT --run RUN.
    """
    given = overridden(read_config(config) if config else {}, {k: v for k, v in _typed(ctx).items() if k in FIELDS})
    is_first = launched().is_first
    with _stop_on_signals(say=is_first) as received:
        if dry_run:
            from train.dry_run import dry_run as outline

            estimate = _follow_training(outline(dataset, given, stop=lambda: bool(received)), show=is_first)["estimate"]
            if is_first:
                _show(as_json, estimate, lambda: _print_estimate(estimate))
            return
        if run is None:
            raise ConfigError("train needs a folder for the run: --run RUN (or --dry-run, which keeps nothing)")
        from train.loop import train as run_training

        steps_of_run = run_training(
            dataset, run, given,
            resume=resume, overwrite=overwrite, tensorboard=tensorboard, stop=lambda: bool(received),
        )  # fmt: skip
        summary = _follow_training(steps_of_run, show=is_first)
    if is_first:
        _show(as_json, summary, lambda: _print_training(summary))
    if summary["result"] == "stopped":
        if is_first:
            again = shlex.join([*_launcher(), "cli.py", "train", str(dataset), "--run-folder", str(run), "--resume"])
            err.print(f"stopped after step {summary['step']:,}; go on with: {again}", **PLAIN)
        # A rank that got no signal itself stops with the others.
        raise typer.Exit(128 + (received[0][0] if received else signal.SIGTERM))


def _launcher() -> list[str]:
    """What starts as many ranks as there are now."""
    ranks = launched().world_size
    return ["python"] if ranks == 1 else ["torchrun", "--nproc-per-node", str(ranks)]


# Within so many seconds a second signal is the same wish: a terminal and torchrun both pass Ctrl-C on.
_SAME_WISH_S = 1.0


@contextlib.contextmanager
def _stop_on_signals(*, say: bool) -> Iterator[list[tuple[int, float]]]:
    """Signals that asked the run to stop, and when. A later one ends the process at once."""
    received: list[tuple[int, float]] = []

    def note(number: int, frame: object) -> None:
        if received and time.monotonic() - received[0][1] > _SAME_WISH_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if say and not received:
            os.write(2, b"\nfinishing the step and saving; once more to quit at once\n")
        received.append((number, time.monotonic()))

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow_training(records: Iterator[Any], *, show: bool) -> dict[str, Any]:
    """Drain a run, a progress bar on stderr where it is to `show`; returns its summary."""
    from train.dry_run import Estimate
    from train.progress import Finished, Note, Saved, Started, Stepped, Stopped, Validated, Waiting

    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(elapsed_when_finished=True), console=err, disable=not show,
    )  # fmt: skip
    row = bar.add_task("", total=None, status="", visible=False)
    summary: dict[str, Any] = {"validation": None, "best": None, "checkpoint": None}

    def say(text: str, style: str | None = None) -> None:
        if show:
            bar.console.print(text, style=style, **PLAIN)

    with bar:
        for record in records:
            match record:
                case Note():
                    say(("warning: " if record.warning else "") + record.text, "yellow" if record.warning else None)
                case Started():
                    say(_training_title(record))
                    bar.update(row, total=record.num_steps, completed=record.step, visible=True)
                    summary |= {"run": str(record.run), "steps": record.num_steps, "baselines": record.baselines,
                                "validation_users": record.validation_users}  # fmt: skip
                case Stepped():
                    status = (f"loss {_number(record.loss)}  {record.tokens_per_s:,.0f} tokens/s  "
                              f"waiting {record.wait_share:.0%}")  # fmt: skip
                    if record.ahead is not None:
                        status += f"  {record.ahead} shards ahead"
                    bar.update(row, completed=record.step, status=status)
                case Waiting():
                    bar.update(row, status=f"waited {record.seconds:,.0f} s for {record.what}")
                    say(f"waited {record.seconds:,.0f} s for {record.what}")
                case Validated():
                    say(_validation_line(record, summary["baselines"]))
                case Saved():
                    summary["checkpoint"] = str(record.path)
                case Estimate():
                    summary["estimate"] = asdict(record) | {"training_s": record.training_s}
                case Finished() | Stopped():
                    summary |= {"step": record.step, "result": "stopped"}
                    if isinstance(record, Finished):
                        summary |= {"result": "finished", "validation": _figures(record.last),
                                    "best": _figures(record.best),
                                    "best_checkpoint": str(record.best_checkpoint or "") or None}  # fmt: skip
            if isinstance(record, Validated):
                summary["validation"] = _figures(record.figures)
    return summary


def _print_estimate(estimate: dict[str, Any]) -> None:
    window_len = estimate["batch_tokens"] // estimate["batch_windows"]
    sizes = {name: f"{estimate[f'{name}_bytes'] / 1e6:,.1f} MB" for name in ("weight", "gradient", "optimizer", "peak")}
    hours, rest = divmod(round(estimate["training_s"]), 3600)
    rows = {
        "parameters": f"{estimate['num_parameters']:,} on {estimate['device']}, {estimate['world_size']} ranks",
        "memory of a rank": f"weights {sizes['weight']}, gradients {sizes['gradient']}, optimizer "
        f"{sizes['optimizer']}; at most {sizes['peak']} in all during the timed steps",
        "batches": f"{estimate['batch_windows']:,} windows × {window_len:,} = {estimate['batch_tokens']:,} tokens, "
        f"in passes of {estimate['micro_batch_windows'] * window_len:,}",
        "steps": f"{estimate['num_steps']:,} at most, {estimate['steps_per_epoch']:,} an epoch",
        "tokens": f"{estimate['num_tokens']:,} without PAD",
        "expected time": f"{hours} h {rest // 60} min {rest % 60} s: {estimate['step_s']:.3f} s a step (median of "
        f"{estimate['timed_steps']}); validation and checkpoints come on top",
    }
    table = Table(title="dry run: nothing was kept", show_header=False, title_justify="left")
    for name, text in rows.items():
        table.add_row(name, text)
    out.print(table)


def _figures(figures: Any) -> dict[str, Any] | None:
    return None if figures is None else figures.model_dump()


def _validation_line(record: Any, baselines: dict[str, float | None]) -> str:
    """Each task's loss with its baseline beside it, so that the number means something."""
    figures = record.figures
    tasks = ", ".join(f"{task} {_number(loss)} ({_baseline(task)} {_number(baselines[task])})"
                      for task, loss in figures.losses.items())  # fmt: skip
    best = ", the best so far" if record.is_best else ""
    return f"step {figures.step:,}: validation loss {_number(figures.loss)}{best}: {tasks}"


def _baseline(task: str) -> str:
    return "popularity" if task.endswith("_watch") else "mean rating"


def _training_title(started: Any) -> str:
    tokens = started.batch_windows * started.window_len
    micro = started.micro_batch_windows * started.window_len
    share = tokens // started.world_size
    parts = [
        f"{started.run}: {started.num_parameters:,} parameters on {started.device}"
        + (f", {started.world_size} ranks" if started.world_size > 1 else ""),
        f"batches of {started.batch_windows:,} windows × {started.window_len:,} = {tokens:,} tokens"
        + (f" in passes of {micro:,}" if micro < share else ""),
        f"{started.num_steps:,} steps, {started.steps_per_epoch:,} an epoch",
    ]
    return "; ".join(parts)


def _print_training(summary: dict[str, Any]) -> None:
    validation, best = summary["validation"], summary["best"]
    if validation is None:
        return
    table = Table(title=f"{summary['run']}: validation after step {validation['step']:,}", title_justify="left")
    for column in ("task", "loss", *(["best"] if best else []), "baseline", "users"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, loss in validation["losses"].items():
        row = [task, _number(loss), *([_number(best["losses"][task])] if best else [])]
        table.add_row(*row, f"{_number(summary['baselines'][task])} ({_baseline(task)})",
                      f"{summary['validation_users'][task]:,}")  # fmt: skip
    out.print(table)
    if best:
        out.print(f"best: step {best['step']:,}, {summary['best_checkpoint']}", **PLAIN)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def main() -> None:
    """The one edge where errors that a user can fix become messages and exit codes."""
    try:
        app()
    except StreamfeatError as error:
        _print_error(error)
        sys.exit(error.exit_code)


def _print_error(error: StreamfeatError) -> None:
    """Errors that all ranks make alike are printed once; one that follows another rank's has no text."""
    try:
        rank = launched().rank
    except ConfigError:
        rank = 0
    alike = isinstance(error, ConfigError | DataError | DivergedError)
    if str(error) and (rank == 0 or not alike):
        err.print(f"error: {f'rank {rank}: ' if rank else ''}{error}", **PLAIN)


if __name__ == "__main__":
    main()
