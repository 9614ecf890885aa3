"""The command `print-config`: prints the options of a command as a TOML file for --config."""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import typer

from streamfeat_cli.config_file import toml_text
from streamfeat_cli.console import PLAIN, err, out
from streamfeat_cli.declaration import COMMANDS, Command, examples_text, program
from streamfeat_cli.options import described, help_text, type_text

_EXAMPLES = (
    "print-config train > run.toml",
    "print-config train --config run.toml --preset small",
    "print-config build-shards --window-len 512 > build.toml",
)
print_config = typer.Typer(
    help="Print a command's options as TOML: what is given here or in --config, the rest as comments.",
    no_args_is_help=True,
    epilog=examples_text(_EXAMPLES),
)


def register_all() -> None:
    """Adds a subcommand for each registered command."""
    for command in COMMANDS.values():
        print_config.command(command.name, help=f"Print the options of {command.name} as TOML.")(_printer(command))


def _printer(command: Command) -> Callable[..., None]:
    def call(**values: Any) -> None:
        given = command.given(values.pop("config"), values)
        out.print(config_text(command, given), **PLAIN)
        if err.is_terminal:
            err.print(f"next: {program()} {command.name} … --config FILE, where FILE holds this text", **PLAIN)

    return command.with_signature([], call)


def config_text(command: Command, given: Mapping[str, Any]) -> str:
    """Every option with its description and its value. An option that was not `given` is a comment, so that its value
    still follows from the preset, the defaults and the other options when the text is used as a file."""
    values = command.options.in_force(given, command.name)
    lines = [f"[{command.name}]"]
    for panel, names in groupby(values, lambda name: described(command.options.fields[name]).panel):
        lines += ["", f"# ---- {panel} ----"] if panel else []
        for name in names:
            field, value = command.options.fields[name], values[name]
            lines += ["", f"# {help_text(field)} {type_text(field)}"]
            lines.append(f"{'' if name in given else '# '}{name} = {'' if value is None else toml_text(value)}")
    return "\n".join(lines)
