"""`recommend`."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.progress import Note
from streamfeat.progress_bars import shown
from streamfeat.records import validated
from streamfeat_cli.build import columns_of
from streamfeat_cli.console import PLAIN, Json, out, show, typed

if TYPE_CHECKING:
    from train.inference.recommend import Recommendation


def recommend(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    history: Annotated[str | None, typer.Option(help="Event file, of one user or many; -: CSV on stdin.")] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", help="Items per medium. Default: 10, or all given.")] = None,
    at: Annotated[str | None, typer.Option(help="When: 2026-12-24, 2026-12-24T20:15, or Unix seconds.")] = None,
    candidates: Annotated[Path | None, typer.Option(help="File that lists the only items to rank.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Keep items that the user has had.")] = False,
    all_users: Annotated[Path | None, typer.Option(help="Parquet file to write for every user of the dataset.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="With --all-users: where the run's dataset lies now.")] = None,
    checkpoint: Annotated[str, typer.Option(help="best, latest, or the name of a checkpoint's folder.")] = "best",
    format: Annotated[str, typer.Option(help="How the event file is read; auto recognises it.")] = "auto",
    columns: Annotated[str, typer.Option(help="role=column,…: user, item, timestamp, rating, …")] = "",
    time_unit: Annotated[str, typer.Option(help="auto, s, ms, us or ns: unit of numeric timestamps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --all-users.")] = False,
    as_json: Json = False,
) -> None:
    """What to watch next, P(watch at t), the rating: RUN --history FILE; everyone: RUN --all-users OUT.parquet."""
    if (history is None) == (all_users is None):
        raise ConfigError("recommend needs one of a history (--history FILE or -) and everyone (--all-users FILE)")
    time = None if at is None else time_of(at)
    of_history, of_everyone = ("candidates", "format", "columns", "time_unit"), ("dataset", "overwrite")
    if wrong := sorted(typed(ctx).keys() & set(of_history if all_users is not None else of_everyone)):
        name, other = wrong[0].replace("_", "-"), "--all-users" if all_users is not None else "--history"
        raise ConfigError(f"--{name} says nothing to {other}; leave it out")
    if all_users is not None:
        written = _for_everyone(run, dataset, all_users, k, time, seen, checkpoint, overwrite)
        show(as_json, written, lambda: out.print(f"{written['file']}: {written['rows']:,} rows", **PLAIN))
        return
    from train.inference.recommend import recommend_steps

    assert history is not None
    reading = validated(
        BuildConfig, {"format": format, "columns": columns_of(columns), "time_unit": time_unit}, "recommend"
    )
    notes: list[Note] = []
    lists = []
    steps = recommend_steps(
        run, history, k=k, at=time, candidates=candidates, seen=seen, checkpoint=checkpoint, reading=reading
    )
    for found in shown(steps, notes):
        lists.append(asdict(found))
        if not as_json:
            _print_lists(found)
    show(as_json, {"notes": [asdict(note) for note in notes], "recommendations": lists}, lambda: None)


def time_of(text: str) -> datetime | int:
    """A date, a date and time (UTC unless it says otherwise) or Unix seconds. Raises ConfigError for anything else."""
    if re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", text):
        raise ConfigError(f"--at {text}: a date or Unix seconds? write {text[:4]}-{text[4:6]}-{text[6:]} for the date")
    try:
        return int(text)
    except ValueError:  # no number, or one of thousands of digits
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--at {text[:40]!r}: write 2026-12-24, 2026-12-24T20:15 or Unix seconds") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _for_everyone(
    run: Path,
    dataset: Path | None,
    file: Path,
    k: int | None,
    at: datetime | int | None,
    seen: bool,
    checkpoint: str,
    overwrite: bool,
) -> dict[str, Any]:
    from train.inference.every_user import recommend_all_steps
    from train.inference.recommend import DEFAULT_K

    steps = recommend_all_steps(
        run,
        dataset,
        file,
        k=DEFAULT_K if k is None else k,
        at=at,
        seen=seen,
        checkpoint=checkpoint,
        overwrite=overwrite,
    )
    notes: list[Note] = []
    (written,) = shown(steps, notes)
    return {
        "file": str(written.path),
        "users": written.users,
        "rows": written.rows,
        "notes": [asdict(note) for note in notes],
    }


def _print_lists(record: "Recommendation") -> None:
    """One table per medium."""
    when = f"{datetime.fromtimestamp(record.at, UTC):%Y-%m-%d %H:%M} UTC ({record.time_source})"
    for medium, items in record.media.items():
        out.print(f"user {record.user}, {medium}, at {when}; {record.events:,} events", **PLAIN)
        has_titles = any(item.title for item in items)
        table = Table()
        for column in ("#", "item", *(("title",) if has_titles else ()), "P", "rating"):
            table.add_column(column, justify="left" if column in ("item", "title") else "right")
        for item in items:
            rating = "–" if item.rating is None else f"{item.rating:.2f}"
            title = (item.title or "",) if has_titles else ()
            table.add_row(str(item.rank), item.item, *title, f"{item.probability:.4f}", rating)
        out.print(table)
