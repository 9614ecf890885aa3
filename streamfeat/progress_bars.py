"""How long calls are shown while they go on: a bar for each stage on standard error, notes in between. Door of rich.

The command line and Python's calls use the same loop; nothing else in the library prints.
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
    """Prints texts as they are: no markup, no emoji codes, nothing that steers the terminal. Standard error that cannot
    be written ends no work: nothing more is said there."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **{**options, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        raise  # as any other error: rich would end the process

    def __exit__(self, *error: object) -> None:  # where rich writes
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
                if not quiet and (step.warning or not warnings_only):
                    print_note(step)
            elif not isinstance(step, Progress):
                yield step
            elif not quiet and not warnings_only:
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


class _Rate(rich.ProgressColumn):
    """Units a second since the bar appeared."""

    def render(self, task: rich.Task) -> Text:
        rate = (task.completed - task.fields["first"]) / max(task.finished_time or task.elapsed or 0, 1e-3)
        return Text(f"{rate:,.{0 if rate >= 10 else 1}f}/s" if rate else "")


def print_note(note: Note) -> None:
    """One line on standard error; warnings are marked."""
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
    """What a call of Python's waits for: all that `steps` yields beside notes and progress, which are shown meanwhile.

    progress: True shows bars and notes, False warnings alone, None what fits: bars in a terminal and in a notebook.
    `notes` and `quiet` as in `shown`. Whatever ends it, what `steps` holds is let go of at once.
    """
    try:
        return list(shown(steps, notes, quiet=quiet, warnings_only=not _is_seen(progress)))
    finally:
        if isinstance(steps, Generator):  # a notebook keeps the traceback, and with it the frames that hold the steps
            steps.close()


def _is_seen(progress: bool | None) -> bool:
    if progress is not None:
        return progress
    if err.is_jupyter:  # where rich's bars are widgets
        return importlib.util.find_spec("ipywidgets") is not None
    return err.is_terminal
