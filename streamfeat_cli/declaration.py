"""How a command is declared: its name, its options, three examples, and a function that does it.

    @command("verify", Options(VerifyOptions), examples=("verify data", …))
    def verify(dataset: Dataset, options: VerifyOptions, as_json: Json = False) -> Next: …

typer sees the parameters of the function, but with one parameter for each option in place of `options`. The function
gets `options` as a model, which knows the options that were given (`model_fields_set`). A function with a parameter
`given` instead gets a dict of the options that were typed or read from --config. It returns the command to type next.
"""

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from streamfeat_cli.config_file import read_toml
from streamfeat_cli.console import PLAIN, err
from streamfeat_cli.options import Options, spelled

COMMANDS: dict[str, "Command"] = {}  # those that are registered
Next = tuple[str | Path, ...]  # words of the command to type next

Dataset = Annotated[Path, typer.Argument(metavar="DATA", help="Dataset that build-shards made.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
_File = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file that sets any of the options; typed ones win."),
]


def program(ranks: int = 1) -> str:
    """The words that start this program with `ranks` ranks on one machine, for messages that say what to type."""
    # Not `python streamfeat/__main__.py`: Python would search that folder first, and its torch.py would hide torch.
    name = Path(sys.argv[0]).name
    script = "-m streamfeat" if name == "__main__.py" else shlex.quote(sys.argv[0])
    if ranks > 1:
        return f"torchrun --nproc-per-node {ranks} {script}"
    return f"python {script}" if name.endswith(".py") else "streamfeat"


def examples_text(lines: Sequence[str]) -> str:
    """The text below --help: the examples, with the words that start this program."""
    return "\n\n".join(["Examples:", *(f"{program()} {line}" for line in lines)])


@dataclass(frozen=True)
class Command:
    """One command: its name, options, examples, and the function that runs it."""

    name: str
    options: Options
    examples: tuple[str, str, str]
    function: Callable[..., Next | None]

    def register(self, app: typer.Typer) -> None:
        COMMANDS[self.name] = self
        app.command(self.name, epilog=examples_text(self.examples))(self._entry())

    def given(self, config: Path | None, typed: Mapping[str, Any]) -> dict[str, Any]:
        """The options that were typed or are in the file, by name. Raises ConfigError."""
        values = self.options.parsed(typed, self.name)
        if config is None:
            return values
        tables = {key: value for key, value in read_toml(config).items() if key == self.name or key not in COMMANDS}
        once = {own.name.removeprefix("as_"): typed_as(own) for own in self.own()} | {"config": "--config"}
        return self.options.merge(self.options.from_tables(str(config), tables, self.name, once), values)

    def with_signature(self, parameters: list[inspect.Parameter], call: Callable[..., None]) -> Callable[..., None]:
        """`call` with the signature that typer reads: these parameters, the options, --config."""
        for own in parameters:
            if own.annotation.__origin__ is bool:
                information(own).metavar = ""  # --help would show <bool> beside a flag that takes no value
        config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_File)
        ordered = [*self.options.parameters(), config, *parameters]
        ordered.sort(key=lambda parameter: isinstance(information(parameter), OptionInfo))  # arguments first
        call.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        return call

    def _entry(self) -> Callable[..., None]:
        takes_options = "options" in inspect.signature(self.function).parameters

        def call(**values: Any) -> None:
            typed = {name: values.pop(name) for name in self.options.fields}
            given = self.given(values.pop("config"), typed)
            made = {"options": self.options.make(given, self.name)} if takes_options else {"given": given}
            following = self.function(**values, **made)
            if following and err.is_terminal:  # scripts do not need it
                err.print(f"next: {program()} {shlex.join(map(str, following))}", **PLAIN)

        call.__doc__ = self.function.__doc__
        return self.with_signature(self.own(), call)

    def own(self) -> list[inspect.Parameter]:
        """The function's own parameters: arguments, and options that cannot stand in a file."""
        found = inspect.signature(self.function).parameters.values()
        return [p.replace(kind=p.KEYWORD_ONLY) for p in found if p.name not in ("options", "given")]


def information(own: inspect.Parameter) -> ArgumentInfo | OptionInfo:
    """typer's description of a parameter."""
    [info] = own.annotation.__metadata__
    return info  # type: ignore[no-any-return]


def typed_as(own: inspect.Parameter) -> str:
    """How a parameter is written on the command line: `RUN`, `--overwrite`."""
    info = information(own)
    if isinstance(info, ArgumentInfo):
        return str(info.metavar)
    return spelled(own.name) if info.default is ... else str(info.default)


def command(
    name: str, options: Options, *, examples: tuple[str, str, str]
) -> Callable[[Callable[..., Next | None]], Command]:
    """Declare the decorated function as a command."""

    return partial(Command, name, options, examples)
