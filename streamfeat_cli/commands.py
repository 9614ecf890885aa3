"""The application with all commands. This is the only place where errors become exit codes.

Exit codes: 0 done, 1 a bug of ours, those of `streamfeat/errors.py`, 130 and 143 stopped by a signal, 141 if the reader
of standard output has closed it (`cli.py inspect DATA | head`).
"""

import sys
from typing import Annotated

import typer

from streamfeat.errors import ConfigError, DataError, DivergedError, StreamfeatError
from streamfeat_cli.build import build_shards
from streamfeat_cli.console import PLAIN, err, outputs, refused_results
from streamfeat_cli.evaluate import evaluate
from streamfeat_cli.export import export_features
from streamfeat_cli.inspect import inspect
from streamfeat_cli.invent import invent
from streamfeat_cli.print_config import print_config, register_all
from streamfeat_cli.recommend import recommend
from streamfeat_cli.refresh import refresh
from streamfeat_cli.signals import whole_process
from streamfeat_cli.train import train
from streamfeat_cli.verify import verify
from streamfeat_cli.version import print_version
from train.devices.launch import launched

# rich shows the panels of --help and reads brackets as markup. A test checks that no text there has a bracket.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (build_shards, inspect, train, evaluate, recommend, refresh, verify, export_features, invent):
    command.register(app)
register_all()
app.add_typer(print_config, name="print-config")


@app.callback()
def _(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, metavar="", help="What runs here, and where."),
    ] = False,
) -> None:
    """From watch histories to a trained model: build-shards, then train, then evaluate or recommend."""


def main() -> None:
    """Runs the command that was typed. Errors that a user can fix become messages and exit codes here."""
    with outputs(), whole_process():
        try:
            with refused_results():
                app()
        except StreamfeatError as error:
            _print_error(error)
            sys.exit(error.exit_code)


def _print_error(error: StreamfeatError) -> None:
    """Prints an error. Rank 0 alone prints an error that all ranks raise. An error without text, which only follows
    another rank's, is not printed."""
    try:
        rank = launched().rank
    except ConfigError:
        rank = 0
    alike = isinstance(error, ConfigError | DataError | DivergedError)
    if str(error) and (rank == 0 or not alike):
        err.print(f"error: {f'rank {rank}: ' if rank else ''}{error}", **PLAIN)
