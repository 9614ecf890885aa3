"""The command line: `commands/` has one file for each command or a few of them."""

import sys

import typer

from commands.build import build_shards
from commands.console import PLAIN, err
from commands.evaluate import evaluate
from commands.export import export_features
from commands.look import inspect, invent, verify
from commands.recommend import recommend
from commands.train import train
from streamfeat.errors import ConfigError, DataError, DivergedError, StreamfeatError
from train.launch import launched

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("build-shards")(build_shards)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("recommend")(recommend)
app.command("export-features")(export_features)
app.command("inspect")(inspect)
app.command("verify")(verify)
app.command("invent")(invent)


def main() -> None:
    """The one edge where errors that a user can fix become messages and exit codes."""
    try:
        app()
    except StreamfeatError as error:
        _print_error(error)
        sys.exit(error.exit_code)


def _print_error(error: StreamfeatError) -> None:
    """Errors that all ranks make alike are printed once; one that follows another rank's has no text."""
    try:
        rank = launched().rank
    except ConfigError:
        rank = 0
    alike = isinstance(error, ConfigError | DataError | DivergedError)
    if str(error) and (rank == 0 or not alike):
        err.print(f"error: {f'rank {rank}: ' if rank else ''}{error}", **PLAIN)


if __name__ == "__main__":
    main()
