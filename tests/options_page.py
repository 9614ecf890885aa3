"""`docs/options.md`, made from the fields of the config models and the signatures of the commands.

python tests/options_page.py    # writes it anew
"""

import inspect
from pathlib import Path

from pydantic.fields import FieldInfo
from typer.models import OptionInfo

import streamfeat_cli.commands  # noqa: F401  registers the commands
from streamfeat_cli.declaration import COMMANDS, Command, information, typed_as
from streamfeat_cli.options import bounds_text, default_text, described, spelled, type_text

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
_HEAD = """# Options

Made from the code by `python tests/options_page.py`; a test compares the two. `-h` after a command shows the same.

Options with a *key* can stand in a TOML file that `--config FILE` names; what is typed wins. A key stands in the table
of its command, `[train]`, or above all tables; keys of another table have it before them, as `model.layers`, and may
stand in the command's table too. One file may hold the tables of several commands. `print-config COMMAND` prints such a
file with all options, and takes the same options as the command.
"""


def page() -> str:
    return "\n".join([_HEAD, *(line for command in COMMANDS.values() for line in _section(command))])


def _section(command: Command) -> list[str]:
    own = [parameter for parameter in command.own() if not information(parameter).hidden]
    arguments = " ".join(typed_as(one) for one in own if not isinstance(information(one), OptionInfo))
    once = [one for one in own if isinstance(information(one), OptionInfo)]
    tables = {name: table for table, model in command.options.tables.items() for name in model.model_fields}
    return [
        f"## `{command.name} {arguments}`",
        "",
        (inspect.getdoc(command.function) or "").partition("\n")[0],
        "",
        *_table(
            ("option", "key", "value", "default", "what it does"),
            [_row(name, field, tables.get(name, "")) for name, field in command.options.fields.items()],
        ),
        *_table(
            ("typed only", "what it does"),
            [(f"`{typed_as(one)}`", str(information(one).help)) for one in once],
        ),
    ]


def _row(name: str, field: FieldInfo, table: str) -> tuple[str, ...]:
    flags = described(field).flags or (spelled(name),)
    value = ", ".join([f"`{type_text(field)}`", *bounds_text(field)])
    key = f"{table}.{name}" if table else name
    return ", ".join(f"`{flag}`" for flag in flags), f"`{key}`", value, default_text(field), str(field.description)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [heads, ("---",) * len(heads), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def main() -> None:
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
