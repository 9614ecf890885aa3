"""The command `inspect` on event files: prints how a build would read them."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from streamfeat.config import BuildConfig, ReadingConfig
from streamfeat.progress import Note
from streamfeat.progress_bars import shown
from streamfeat_cli.console import PLAIN, out, print_summary, show

if TYPE_CHECKING:
    from streamfeat.events.file_report import EventsReport, FileReport


def inspect_events(path: str, options: ReadingConfig, as_json: bool) -> None:
    """Reads the event files `path`, a name or a glob, and prints the report."""
    from streamfeat.events.file_report import report_steps

    config = BuildConfig(**options.model_dump(include=set(ReadingConfig.model_fields)))
    notes: list[Note] = []
    (report,) = shown(report_steps([path], config), notes)
    values = asdict(report) | {"notes": [asdict(note) for note in notes]}
    values["rejected_rows"] = [reject._asdict() for reject in report.rejected_rows]
    show(as_json, values, lambda: _print(path, report))


def _print(path: str, report: "EventsReport") -> None:
    for file in report.files:
        out.print(f"{file.path}: {file.note}", **PLAIN)
        _print_roles(file)

    def share(number: int) -> str:
        return f"{number:,} of {report.events:,} ({number / max(report.events, 1):.1%})"

    print_summary(
        {
            "result": path,
            "rows": report.rows,
            "rejected_rows": report.rejected,
            "events": report.events,
            "users": report.users,
            "items": report.items,
            "times": f"{report.first} to {report.last}" if report.events else None,
            "unrated": share(report.unrated),
            "ratings": ", ".join(f"{level:g}" for level in report.rating_levels) or None,
            "planned": share(report.planned),
            "tied_in_one_second": share(report.tied),
            "undated": report.undated or None,
            "duplicates": report.duplicates,
        }
    )
    for reject in report.rejected_rows:
        out.print(f"row {reject.row}: {reject.reason}: {reject.value!r}", **PLAIN)


def _print_roles(file: "FileReport") -> None:
    table = Table("role", "column", "samples")
    for role in file.roles:
        table.add_row(role.role, role.column or "(the same in every row)", " | ".join(s[:30] for s in role.samples))
        if role.times:
            table.add_row("", "in UTC", " | ".join(role.times))
    if file.left:
        table.add_row("(none)", ", ".join(name[:30] for name in file.left[:20]), "")
    out.print(table)
