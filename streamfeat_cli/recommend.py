"""The command `recommend`: calls `recommend_steps` or, with --all-users, `recommend_all_steps`."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field
from rich.table import Table

from streamfeat.config import BuildConfig, Option, ReadingConfig
from streamfeat.errors import ConfigError
from streamfeat.progress import Note
from streamfeat.progress_bars import shown
from streamfeat_cli.console import PLAIN, Json, out, show
from streamfeat_cli.declaration import Next, RunFolder, command
from streamfeat_cli.options import OptionalPath, Options, spelled

if TYPE_CHECKING:
    from train.inference.recommend import Recommendation

MatchItems = Literal["auto", "id", "title"]
_ONE, _ALL = Option(panel="For a history"), Option(panel="For every user")


class RecommendOptions(ReadingConfig):
    """Which users, which time and which items."""

    history: Annotated[str | None, Option(metavar="FILE")] = Field(
        default=None, description="Event file, of one user or many; -: CSV on standard input."
    )
    all_users: Annotated[OptionalPath, Option(metavar="FILE")] = Field(
        default=None, description="Parquet file to write for every user of the dataset."
    )
    k: Annotated[int | None, Option(flags=("-k", "--k"), default="10, or all candidates")] = Field(
        default=None, description="Items per medium."
    )
    at: Annotated[str | None, Option(metavar="TIME")] = Field(
        default=None, description="Time to recommend for: 2026-12-24, 2026-12-24T20:15, or Unix seconds."
    )
    seen: bool = Field(default=False, description="Include items of the user's history.")
    checkpoint: str = Field(default="best", description="best, latest, or the name of a checkpoint's folder.")
    candidates: Annotated[OptionalPath, _ONE, Option(metavar="FILE")] = Field(
        default=None, description="File that lists the only items to rank."
    )
    match: Annotated[MatchItems, _ONE, Option(metavar="id|title", default="id; title where ids are another site's")] = (
        Field(default="auto", description="Match items by medium and id, or by title and year.")
    )
    dataset: Annotated[OptionalPath, _ALL] = Field(default=None, description="Where the run's dataset lies now.")


_OF_HISTORY, _OF_EVERYONE = {"candidates", "match", *ReadingConfig.model_fields}, {"dataset", "overwrite"}


@command(
    "recommend",
    Options(RecommendOptions),
    examples=(
        "recommend run --history mine.csv -k 10",
        "recommend run --history mine.csv --at 2026-12-24 --candidates items.txt",
        "recommend run --all-users everyone.parquet",
    ),
)
def recommend(
    run: RunFolder,
    options: RecommendOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --all-users.")] = False,
    as_json: Json = False,
) -> Next:
    """What to watch next, P(watch at t), the rating: RUN --history FILE; everyone: RUN --all-users OUT.parquet."""
    history, all_users = options.history, options.all_users
    if (history is None) == (all_users is None):
        raise ConfigError("recommend needs either a history (--history FILE or -) or all users (--all-users FILE)")
    time = None if options.at is None else time_of(options.at)
    said = options.model_fields_set | ({"overwrite"} if overwrite else set())
    if wrong := sorted(said & (_OF_HISTORY if all_users is not None else _OF_EVERYONE)):
        other = "--all-users" if all_users is not None else "--history"
        raise ConfigError(f"{spelled(wrong[0])} has no effect with {other}; leave it out")
    if all_users is not None:
        written = _for_everyone(run, options, all_users, time, overwrite)
        show(as_json, written, lambda: out.print(f"{written['file']}: {written['rows']:,} rows", **PLAIN))
        return "evaluate", run
    from train.inference.recommend import recommend_steps

    assert history is not None
    reading = BuildConfig(**options.model_dump(include=set(ReadingConfig.model_fields)))
    notes: list[Note] = []
    lists = []
    steps = recommend_steps(
        run,
        history,
        k=options.k,
        at=time,
        candidates=options.candidates,
        seen=options.seen,
        checkpoint=options.checkpoint,
        match=options.match,
        reading=reading,
    )
    for found in shown(steps, notes):
        lists.append(asdict(found))
        if not as_json:
            _print_lists(found)
    show(as_json, {"notes": [asdict(note) for note in notes], "recommendations": lists}, lambda: None)
    return "recommend", run, "--all-users", "FILE"


def time_of(text: str) -> datetime | int:
    """The time that `text` names: a date, a date and time (UTC if it names no zone), or Unix seconds.

    Raises ConfigError for anything else.
    """
    if re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", text):
        raise ConfigError(f"--at {text}: a date or Unix seconds? write {text[:4]}-{text[4:6]}-{text[6:]} for the date")
    try:
        return int(text)
    except ValueError:  # not a number, or one with thousands of digits
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--at {text[:40]!r}: write 2026-12-24, 2026-12-24T20:15 or Unix seconds") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _for_everyone(
    run: Path, options: RecommendOptions, file: Path, at: datetime | int | None, overwrite: bool
) -> dict[str, Any]:
    from train.inference.every_user import recommend_all_steps
    from train.inference.recommend import DEFAULT_K

    steps = recommend_all_steps(
        run,
        options.dataset,
        file,
        k=DEFAULT_K if options.k is None else options.k,
        at=at,
        seen=options.seen,
        checkpoint=options.checkpoint,
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
    """Prints a table for each medium."""
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
