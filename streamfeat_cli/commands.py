"""All commands in one application, and the one edge where errors become exit codes.

Exit codes: 0 done, 1 a bug of ours, those of `streamfeat/errors.py`, 130 and 143 stopped by a signal, 141 where whoever
read standard output reads no more (`cli.py inspect OUT | head`).
"""

import sys

import typer

from streamfeat.errors import ConfigError, DataError, DivergedError, StreamfeatError
from streamfeat_cli.build import build_shards
from streamfeat_cli.console import PLAIN, err, outputs, refused_results
from streamfeat_cli.evaluate import evaluate
from streamfeat_cli.export import export_features
from streamfeat_cli.inspect import inspect
from streamfeat_cli.invent import invent
from streamfeat_cli.recommend import recommend
from streamfeat_cli.signals import whole_process
from streamfeat_cli.train import train
from streamfeat_cli.verify import verify
from train.devices.launch import launched

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
    with outputs(), whole_process():
        try:
            with refused_results():
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
