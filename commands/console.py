"""What all commands print with: results on stdout, everything else on stderr."""

import json
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# Elsewhere than in a terminal, lines are as long as they are: tables are searched and cut there.
WIDTH = None if sys.stdout.isatty() else 160
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
# Control characters, changes of the writing direction, halves of surrogate pairs: none of them belongs on a terminal.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str, *, lines: bool = True) -> str:
    """`text` with what could steer a terminal shown as its escape: ids, titles and names come from files.

    Line ends and tabs stay where `lines` are wanted.
    """
    return _HARMFUL.sub(lambda m: m[0] if lines and m[0] in "\n\t" else repr(m[0])[1:-1], text)


class _PlainConsole(Console):
    """Prints texts as they are: no markup, no emoji codes, nothing that steers the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **{**options, "markup": False, "emoji": False})


err = _PlainConsole(stderr=True)  # all but results: with --json, stdout holds one JSON object and nothing else
out = _PlainConsole(width=WIDTH)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]


def show(as_json: bool, values: dict[str, Any], print_plainly: Callable[[], None]) -> None:
    if as_json:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        sys.stdout.write(_HARMFUL.sub(lambda m: f"\\u{ord(m[0]):04x}", text) + "\n")  # the same JSON
    else:
        print_plainly()


def typed(ctx: typer.Context) -> dict[str, Any]:
    """The options that were typed: a default is no wish."""
    return {name: value for name, value in ctx.params.items()
            if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}  # fmt: skip


def users_bar(description: str) -> Progress:
    """A bar of users that are done, on stderr; its one row comes with `add_task`."""
    return Progress(
        TextColumn(description), BarColumn(), MofNCompleteColumn(), TextColumn("users"), TimeRemainingColumn(),
        console=err,
    )  # fmt: skip


def print_summary(summary: dict[str, Any]) -> None:
    title = ": ".join(summary[name] for name in ("dataset", "run", "result") if name in summary)
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in summary.items():
        if name in ("dataset", "run", "result") or value is None or value == {}:
            continue
        label = name.removesuffix("_bytes").replace("_", " ")
        table.add_row(label, f"{value / 1e6:,.1f} MB" if name.endswith("_bytes") else readable(value))
    out.print(table)


def readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(number)}" for key, number in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
