"""Shows the progress of long calls on standard error: a bar for each stage, and notes. Only this module uses rich.

The command line and the calls from Python use the same loop. Nothing else in the library prints.
"""

import importlib.util
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

from rich import progress as rich
from rich.console import Console
from rich.text import Text

from streamfeat.plain_text import harmless
from streamfeat.progress import Note, Progress

T = TypeVar("T")

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


class PlainConsole(Console):
    """Prints texts as they are: without markup, emoji codes and characters that control the terminal.

    If standard error cannot be written, it prints nothing more there, and the work continues.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **{**options, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        raise  # handled like any other error; rich would end the process

    def __exit__(self, *error: object) -> None:  # here rich writes its output
        try:
            super().__exit__(*error)
        except OSError:
            if not self.stderr:
                raise
            self.quiet = True


err = PlainConsole(stderr=True)


def shown(
    steps: Iterable[Note | Progress | T],
    notes: list[Note] | None = None,
    *,
    quiet: bool = False,
    warnings_only: bool = False,
) -> Iterator[T]:
    """Shows the notes and the progress of a long call, and yields all its other results.

    If given, the list `notes` gets the notes, too. `quiet` shows nothing.
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
                if not quiet and (step.warning or not warnings_only):
                    print_note(step)
            elif not isinstance(step, Progress):
                yield step
            elif not quiet and not warnings_only:
                if not rows:
                    bars.start()  # with the first progress
                if step.stage not in rows:
                    rows[step.stage] = bars.add_task(
                        step.stage, total=step.total, completed=step.done, unit=step.unit, detail="", first=step.done
                    )
                bars.update(rows[step.stage], completed=step.done, detail=step.detail)
    finally:
        if rows:
            bars.stop()


class _Rate(rich.ProgressColumn):
    """Units per second since the bar appeared."""

    def render(self, task: rich.Task) -> Text:
        rate = (task.completed - task.fields["first"]) / max(task.finished_time or task.elapsed or 0, 1e-3)
        return Text(f"{rate:,.{0 if rate >= 10 else 1}f}/s" if rate else "")


def print_note(note: Note) -> None:
    """Prints one line on standard error. Warnings begin with `warning:`."""
    if note.warning:
        err.print(f"warning: {note.text}", style="yellow", **PLAIN)
    else:
        err.print(note.text, **PLAIN)


def events_of(
    steps: Iterator[Note | Progress | T],
    progress: bool | None,
    notes: list[Note] | None = None,
    *,
    quiet: bool = False,
) -> list[T]:
    """Runs `steps` to the end, shows its notes and progress, and returns its other results.

    progress: True shows bars and notes, False only warnings, None bars and notes in a terminal or notebook, otherwise
    warnings. `notes` and `quiet` as in `shown`. Closes `steps` in any case.
    """
    try:
        return list(shown(steps, notes, quiet=quiet, warnings_only=not _is_seen(progress)))
    finally:
        if isinstance(steps, Generator):  # a notebook keeps the traceback, whose frames would keep the generator open
            steps.close()


def _is_seen(progress: bool | None) -> bool:
    if progress is not None:
        return progress
    if err.is_jupyter:  # there rich shows bars as widgets
        return importlib.util.find_spec("ipywidgets") is not None
    return err.is_terminal
