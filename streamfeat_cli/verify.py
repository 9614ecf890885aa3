"""`verify`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from streamfeat.errors import DamagedError
from streamfeat_cli.console import PLAIN, Json, err, out, show


def verify(
    path: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset to check.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Make damaged and missing windows anew from the histories.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Recompute every checksum of a dataset; names what is missing, truncated or altered, and exits 4.

    With --repair, damaged windows are made anew first; exits 0 where the dataset is sound afterwards.
    """
    if repair:
        _repair(path, as_json)
        return
    from streamfeat.store.verify import Problem
    from streamfeat.store.verify import verify_steps as check

    problems = [step for step in _with_bar(path, check(path)) if isinstance(step, Problem)]
    damaged = [problem for problem in problems if problem.kind != "foreign"]
    listed = [asdict(problem) for problem in problems]

    def print_plainly() -> None:
        for problem in problems:
            out.print(str(problem), **PLAIN)
        out.print(f"{path}: {len(damaged)} damaged" if damaged else f"{path}: sound", **PLAIN)

    show(as_json, {"dataset": str(path), "sound": not damaged, "problems": listed}, print_plainly)
    if damaged:
        raise typer.Exit(DamagedError.exit_code)


def _repair(path: Path, as_json: bool) -> None:
    """Verify and repair; each problem and each repaired file is said when it is found."""
    from streamfeat.builder.repair import Repaired, repair_steps

    problems, repaired = [], []
    for step in _with_bar(path, repair_steps(path)):
        if isinstance(step, Repaired):
            repaired.append(step.file)
            err.print(f"repaired: {step.file}", **PLAIN)
        else:
            problems.append(asdict(step))
            err.print(str(step), **PLAIN)
    note = f"{path}: sound, " + (f"{len(repaired)} files repaired" if repaired else "nothing to repair")
    values = {"dataset": str(path), "sound": True, "problems": problems, "repaired": repaired}
    show(as_json, values, lambda: out.print(note, **PLAIN))


def _with_bar(path: Path, steps: Iterator[Any]) -> Iterator[Any]:
    """The steps of a check that are more than "this file has been read", under a bar of files."""
    from streamfeat.store.manifest import load_manifest
    from streamfeat.store.verify import Checked

    with Progress(TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), console=err) as bar:
        task = bar.add_task("", total=len(load_manifest(path).files()))
        for step in steps:
            if isinstance(step, Checked):
                bar.advance(task)
            else:
                yield step
