"""A run as it is seen: its progress bar, its lines, its last table."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamfeat_cli.console import PLAIN, err, number, out


def follow_training(records: Iterator[Any], *, show: bool) -> dict[str, Any]:
    """Drain a run, a progress bar on stderr where it is to `show`; returns its summary."""
    from streamfeat.progress import Note
    from train.training.dry_run import Estimate
    from train.training.progress import Finished, Saved, Started, Stepped, Stopped, Validated, Waiting

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
                    status = (f"loss {number(record.loss)} {record.tokens_per_s:,.0f} tokens/s "
                              f"waiting {record.wait_share:.0%}")  # fmt: skip
                    if record.ahead is not None:
                        status += f" +{record.ahead} shards"
                    bar.update(row, completed=record.step, status=status)
                case Waiting():
                    bar.update(row, status=f"waited {record.seconds:,.0f} s for {record.what}")
                    say(f"waited {record.seconds:,.0f} s for {record.what}")
                case Validated():
                    say(_validation_line(record, summary["baselines"]))
                case Saved():
                    summary["checkpoint"] = str(record.path)
                case Estimate():
                    summary["estimate"] = asdict(record) | {
                        "training_s": record.training_s,
                        "needed_bytes": record.memory.needed.total,
                    }
                case Finished() | Stopped():
                    summary |= {"step": record.step, "result": "stopped"}
                    if isinstance(record, Finished):
                        summary |= {"result": "finished", "validation": _figures(record.last),
                                    "best": _figures(record.best),
                                    "best_checkpoint": str(record.best_checkpoint or "") or None}  # fmt: skip
            if isinstance(record, Validated):
                summary["validation"] = _figures(record.figures)
    return summary


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


def _validation_line(record: Any, baselines: dict[str, float | None]) -> str:
    """Each task's loss with its baseline beside it, so that the number means something."""
    figures = record.figures
    tasks = ", ".join(f"{task} {number(loss)} ({_baseline(task)} {number(baselines[task])})"
                      for task, loss in figures.losses.items())  # fmt: skip
    best = ", the best so far" if record.is_best else ""
    return f"step {figures.step:,}: validation loss {number(figures.loss)}{best}: {tasks}"


def print_training(summary: dict[str, Any]) -> None:
    validation, best = summary["validation"], summary["best"]
    if validation is None:
        return
    table = Table(title=f"{summary['run']}: validation after step {validation['step']:,}", title_justify="left")
    for column in ("task", "loss", *(["best"] if best else []), "baseline", "users"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, loss in validation["losses"].items():
        row = [task, number(loss), *([number(best["losses"][task])] if best else [])]
        table.add_row(*row, f"{number(summary['baselines'][task])} ({_baseline(task)})",
                      f"{summary['validation_users'][task]:,}")  # fmt: skip
    out.print(table)
    if best:
        out.print(f"best: step {best['step']:,}, {summary['best_checkpoint']}", **PLAIN)


def print_estimate(estimate: dict[str, Any]) -> None:
    window_len = estimate["batch_tokens"] // estimate["batch_windows"]
    needed = estimate["memory"]["needed"]
    parts = ", ".join(f"{name} {_megabytes(value)}" for name, value in needed.items() if value)
    sizes = {name: f"{estimate[f'{name}_bytes'] / 1e6:,.1f} MB" for name in ("weight", "gradient", "optimizer", "peak")}
    hours, rest = divmod(round(estimate["training_s"]), 3600)
    rows = {
        "parameters": f"{estimate['num_parameters']:,} on {estimate['device']}, {estimate['world_size']} ranks",
        "memory of a rank": f"weights {sizes['weight']}, gradients {sizes['gradient']}, optimizer "
        f"{sizes['optimizer']}; at most {sizes['peak']} in all during the timed steps",
        "memory expected": f"{_megabytes(estimate['needed_bytes'])} ({parts}) of "
        f"{_megabytes(estimate['memory']['available'])} that are free; "
        f"measured {_megabytes(estimate['peak_bytes'] - estimate['memory']['held'])}",
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


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


def _figures(figures: Any) -> dict[str, Any] | None:
    return None if figures is None else figures.model_dump()


def _baseline(task: str) -> str:
    return "popularity" if task.endswith("_watch") else "mean rating"
