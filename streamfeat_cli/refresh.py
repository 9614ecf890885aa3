"""The command `refresh`: calls `refresh_steps` and prints its receipt."""

from dataclasses import asdict
from typing import Annotated

import typer

from streamfeat.config import ReadingConfig
from streamfeat.progress_bars import shown
from streamfeat_cli.console import PLAIN, Json, out, show
from streamfeat_cli.declaration import Next, RunFolder, command
from streamfeat_cli.options import Options


class RefreshOptions(ReadingConfig):
    """How the event files are read, where it is not as the run's dataset was."""


@command(
    "refresh",
    Options(RefreshOptions),
    examples=("refresh run today.csv", "refresh run 'logs/*.parquet'", "refresh run today.csv --columns user=uid"),
)
def refresh(
    run: RunFolder,
    events: Annotated[list[str], typer.Argument(metavar="EVENTS", help="Event files, folders, or patterns.")],
    options: RefreshOptions,
    as_json: Json = False,
) -> Next:
    """Count newer events into what a run knows of popularity and of items that follow each other, without training."""
    from train.inference.refresh import refresh_steps

    (done,) = shown(refresh_steps(run, events, reading=options))
    show(as_json, {**asdict(done), "file": str(done.file)}, lambda: out.print(str(done), **PLAIN))
    return "recommend", run, "--history", "FILE"
