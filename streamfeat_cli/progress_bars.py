"""How every command shows a long call while it goes on: a bar for each stage on standard error, notes in between."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress as rich
from rich.text import Text

from streamfeat.progress import Note, Progress
from streamfeat_cli.console import PLAIN, err

T = TypeVar("T")


def shown(steps: Iterable[Note | Progress | T], notes: list[Note] | None = None, *, quiet: bool = False) -> Iterator[T]:
    """Show the notes and the progress of a long call; yields whatever else it yields.

    `notes` is a list that takes the notes as well. `quiet` shows nothing.
    """
    bars = rich.Progress(
        rich.TextColumn("{task.description:>12}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[unit]}"),
        _Rate(),
        rich.TimeRemainingColumn(elapsed_when_finished=True),
        rich.TextColumn("{task.fields[detail]}", markup=False),
        console=err,
    )
    rows: dict[str, rich.TaskID] = {}
    try:
        for step in steps:
            if isinstance(step, Note):
                if notes is not None:
                    notes.append(step)
                if not quiet:
                    _print(step)
            elif not isinstance(step, Progress):
                yield step
            elif not quiet:
                if not rows:
                    bars.start()  # not before there is something to do
                if step.stage not in rows:
                    rows[step.stage] = bars.add_task(
                        step.stage, total=step.total, completed=step.done, unit=step.unit, detail="", first=step.done
                    )
                bars.update(rows[step.stage], completed=step.done, detail=step.detail)
    finally:
        if rows:
            bars.stop()


def _print(note: Note) -> None:
    if note.warning:
        err.print(f"warning: {note.text}", style="yellow", **PLAIN)
    else:
        err.print(note.text, **PLAIN)


class _Rate(rich.ProgressColumn):
    """Units a second since the bar appeared."""

    def render(self, task: rich.Task) -> Text:
        rate = (task.completed - task.fields["first"]) / max(task.finished_time or task.elapsed or 0, 1e-3)
        return Text(f"{rate:,.{0 if rate >= 10 else 1}f}/s" if rate else "")
