"""The command `verify`: calls `verify_steps` or, with --repair, `repair_steps`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer
from pydantic import Field

from streamfeat.errors import DamagedError
from streamfeat.progress_bars import shown
from streamfeat.records import Frozen
from streamfeat_cli.console import PLAIN, Json, err, out, show
from streamfeat_cli.declaration import Dataset, Next, command
from streamfeat_cli.options import Options


class VerifyOptions(Frozen):
    """What is done with damaged files."""

    repair: bool = Field(default=False, description="Write damaged and missing windows again, from the histories.")


@command("verify", Options(VerifyOptions), examples=("verify data", "verify data --repair", "verify data --json"))
def verify(dataset: Dataset, options: VerifyOptions, as_json: Json = False) -> Next:
    """Recompute every checksum of a dataset; names what is missing, truncated or altered, and exits 4.

    With --repair, damaged windows are written again first; exits 0 if the dataset is sound afterwards.
    """
    if options.repair:
        _repair(dataset, as_json)
        return "train", dataset, "RUN"
    from streamfeat.store.verify import verify_steps

    problems = list(shown(verify_steps(dataset)))
    damaged = [problem for problem in problems if problem.kind != "foreign"]
    listed = [asdict(problem) for problem in problems]

    def print_plainly() -> None:
        for problem in problems:
            out.print(str(problem), **PLAIN)
        out.print(f"{dataset}: {len(damaged)} damaged" if damaged else f"{dataset}: sound", **PLAIN)

    show(as_json, {"dataset": str(dataset), "sound": not damaged, "problems": listed}, print_plainly)
    if damaged:
        raise typer.Exit(DamagedError.exit_code)
    return "train", dataset, "RUN"


def _repair(path: Path, as_json: bool) -> None:
    """Verifies and repairs. Prints each problem and each repaired file as soon as it is found."""
    from streamfeat.builder.repair import Repaired, repair_steps
    from streamfeat.store.verify import Problem

    problems, repaired = [], []
    steps: Iterator[Problem | Repaired] = shown(repair_steps(path))
    for step in steps:
        if isinstance(step, Repaired):
            repaired.append(step.file)
            err.print(f"repaired: {step.file}", **PLAIN)
        else:
            problems.append(asdict(step))
            err.print(str(step), **PLAIN)
    note = f"{path}: sound, " + (f"{len(repaired)} files repaired" if repaired else "nothing to repair")
    values = {"dataset": str(path), "sound": True, "problems": problems, "repaired": repaired}
    show(as_json, values, lambda: out.print(note, **PLAIN))
