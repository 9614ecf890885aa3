"""Prints a training run: its progress, its messages, its last table."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from streamfeat.progress_bars import shown
from streamfeat_cli.console import PLAIN, out
from train.training.progress import (
    Carried,
    Finished,
    Saved,
    Started,
    Stopped,
    TrainingReport,
    Validated,
    baseline_of,
    decimal,
)

if TYPE_CHECKING:
    from train.runs.standing import Figures
    from train.training.dry_run import Estimate


def follow_training(records: Iterator[TrainingReport], *, show: bool) -> dict[str, Any]:
    """Runs the training to its end and returns its summary. Prints progress to stderr if `show` is set."""
    summary: dict[str, Any] = {"validation": None, "best": None, "checkpoint": None}
    for record in shown(records, quiet=not show):
        match record:
            case Started():
                summary |= {
                    "run": str(record.run),
                    "steps": record.num_steps,
                    "baselines": record.baselines,
                    "validation_users": record.validation_users,
                }
            case Carried():
                summary["started_from"] = record.model_dump(mode="json")
            case Validated():
                summary["validation"] = _figures(record.figures)
            case Saved():
                summary["checkpoint"] = str(record.path)
            case Stopped():
                summary |= {"step": record.step, "result": "stopped"}
            case Finished():
                summary |= {
                    "step": record.step,
                    "result": "finished",
                    "validation": _figures(record.last),
                    "best": _figures(record.best),
                    "best_checkpoint": str(record.best_checkpoint or "") or None,
                    "reason": record.reason,
                }
    return summary


def follow_dry_run(records: "Iterator[TrainingReport | Estimate]", *, show: bool) -> dict[str, Any] | None:
    """Runs the dry run to its end and returns its estimate, None if it was stopped. Prints progress to stderr if `show`
    is set."""
    from train.training.dry_run import Estimate

    found = [record for record in shown(records, quiet=not show) if isinstance(record, Estimate)]
    if not found:
        return None
    (estimate,) = found
    return asdict(estimate) | {"training_s": estimate.training_s, "needed_bytes": estimate.memory.needed.total}


def print_training(summary: dict[str, Any]) -> None:
    validation, best = summary["validation"], summary["best"]
    if "reason" in summary:
        out.print(f"ended after step {summary['step']:,}: {summary['reason']}", **PLAIN)
    if validation is None:
        return
    table = Table(title=f"{summary['run']}: validation after step {validation['step']:,}", title_justify="left")
    for column in ("task", "loss", *(["best"] if best else []), "baseline", "users"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, loss in validation["losses"].items():
        row = [task, decimal(loss), *([decimal(best["losses"][task])] if best else [])]
        baseline = f"{decimal(summary['baselines'][task])} ({baseline_of(task)})"
        table.add_row(*row, baseline, f"{summary['validation_users'][task]:,}")
    out.print(table)
    if best:
        out.print(f"best: step {best['step']:,}, {summary['best_checkpoint']}", **PLAIN)
        for medium, mixtures in best["mixtures"].items():
            for time, chosen in mixtures.items():
                gain = f"gain {chosen['gain']:.4f} ± {chosen['error']:.4f} nats" if chosen["gain"] else "no clear gain"
                parts = f"transitions {chosen['strength']:g}, model {1 - sum(chosen['shares']):.0%}"
                out.print(f"{medium}, time {time}: {parts}, {gain} on validation", **PLAIN)


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


def _figures(figures: "Figures | None") -> dict[str, Any] | None:
    return None if figures is None else figures.model_dump()
