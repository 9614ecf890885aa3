"""`evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from commands.console import PLAIN, Json, err, out, show


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    dataset: Annotated[Path | None, typer.Option(help="Where the run's dataset lies now, if elsewhere.")] = None,
    checkpoint: Annotated[str, typer.Option(help="best, latest, or the name of a checkpoint's folder.")] = "best",
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of the rivals' first weights.")] = 0,
    bootstrap: Annotated[int, typer.Option(help="Resamples of users behind every interval.")] = 1000,
    as_json: Json = False,
) -> None:
    """Rank the full catalogue for each user's held-out event, beside simple rivals on the same split."""
    from train.evaluate import evaluate as score
    from train.evaluation import Evaluation, Fitting, Scored

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("users"), TimeRemainingColumn(),
        console=err,
    )  # fmt: skip
    with bar:
        row = bar.add_task("fitting rivals", total=None)
        for record in score(run, dataset, checkpoint=checkpoint, seed=seed, num_bootstrap=bootstrap):
            match record:
                case Fitting():
                    bar.update(row, description=f"fitting {record.rival}")
                case Scored():
                    bar.update(row, description="scoring", total=record.total, completed=record.users)
                case Evaluation():
                    found = record
    show(as_json, found.to_json(), lambda: _print(found))


def _print(found: Any) -> None:
    for medium in dict.fromkeys(line.protocol.medium for line in found.ranking):
        _print_ranking(medium, [line for line in found.ranking if line.protocol.medium == medium])
    for medium in dict.fromkeys(line.protocol.medium for line in found.ratings):
        _print_ratings(medium, [line for line in found.ratings if line.protocol.medium == medium])
    _print_differences(found.differences)
    for line in found.calibration:
        _print_calibration(line)
    _print_protocol(found.ranking[0].protocol)


def _print_ranking(medium: str, lines: list[Any]) -> None:
    users = lines[0].protocol.users
    ranked = {(line.system, line.protocol.seen, line.protocol.time): line for line in lines}
    _print_grid(
        f"ranking, {medium}: {users:,} users",
        {key: {name: figure.value for name, figure in line.figures.items()} for key, line in ranked.items()},
    )
    _print_grid(f"share of the catalogue shown, {medium}", {key: line.coverage for key, line in ranked.items()})
    for (system, seen, time), line in ranked.items():
        if system == "model":
            figure = line.figures[f"ndcg@{10 if 10 in line.protocol.ks else line.protocol.ks[0]}"]
            out.print(f"model, seen {seen}, time {time}: NDCG {_interval(figure)}", **PLAIN)


def _print_grid(title: str, rows: dict[tuple[str, str, str], dict[str, float]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in ("system", "seen", "time"):
        table.add_column(name, no_wrap=True)
    for name in next(iter(rows.values())):
        table.add_column(name, justify="right", no_wrap=True)
    for key, figures in rows.items():
        table.add_row(*key, *(f"{value:.4f}" for value in figures.values()))
    out.print(table)


def _print_ratings(medium: str, lines: Sequence[Any]) -> None:
    table = Table(title=f"ratings, {medium}: {lines[0].protocol.users:,} users", title_justify="left")
    for name in ("system", "time", "rmse", "mae"):
        table.add_column(name)
    for line in lines:
        table.add_row(line.system, line.protocol.time, *(_interval(line.figures[name]) for name in ("rmse", "mae")))
    out.print(table)


def _print_differences(lines: Sequence[Any]) -> None:
    table = Table(title="model minus the best rival on the same targets (paired)", title_justify="left")
    for name in ("medium", "figure", "rival", "seen", "time", "difference"):
        table.add_column(name)
    for line in lines:
        protocol = line.protocol
        table.add_row(
            protocol.medium, line.figure, line.rival, protocol.seen, protocol.time, _interval(line.difference, "+.4f")
        )
    out.print(table)


def _print_calibration(line: Any) -> None:
    calibration = line.calibration
    title = (
        f"calibration of P(watch at t), {line.protocol.medium}, time {line.protocol.time}: expected error "
        f"{calibration.error:.4f} (by chance alone {calibration.error_if_calibrated:.4f})"
    )
    table = Table(title=title, title_justify="left")
    for name in ("users", "said", "watched"):
        table.add_column(name, justify="right")
    for bin_ in calibration.bins:
        table.add_row(f"{bin_.users:,}", f"{bin_.confidence:.4f}", f"{bin_.accuracy:.4f}")
    out.print(table)


def _print_protocol(protocol: Any) -> None:
    catalogue = ", ".join(f"{medium} {items:,}" for medium, items in protocol.catalogue.items())
    parts = (
        f"split {protocol.split}: {protocol.target}",
        f"{protocol.users_without_target:,} users without a target",
        f"catalogue {catalogue}",
        f"{protocol.tied_share:.0%} of targets hang on ties ({protocol.tie_rule})",
        f"equal scores: {protocol.rank_ties}",
        f"at least {protocol.min_item_events} events an item, {protocol.min_user_events} a user",
        f"{protocol.objective}; checkpoint {protocol.checkpoint}; dataset {protocol.fingerprint[:16]}…",
        f"intervals: 95%, {protocol.resamples:,} resamples of users",
    )
    out.print("; ".join(parts), **PLAIN)


def _interval(figure: Any, form: str = ".4f") -> str:
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"
