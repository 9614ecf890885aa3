"""What all commands print with: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Elsewhere than in a terminal, lines are as long as they are: tables are searched and cut there.
WIDTH = None if sys.stdout.isatty() else 160
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
err = Console(stderr=True)  # everything but results: with --json, stdout holds one JSON object and nothing else
out = Console(width=WIDTH)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]


def show(as_json: bool, values: dict[str, Any], print_plainly: Callable[[], None]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        print_plainly()


def typed(ctx: typer.Context) -> dict[str, Any]:
    """The options that were typed: a default is no wish."""
    return {name: value for name, value in ctx.params.items()
            if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}  # fmt: skip


def print_summary(summary: dict[str, Any]) -> None:
    title = ": ".join(summary[name] for name in ("dataset", "run", "result") if name in summary)
    table = Table(title=escape(title), show_header=False, title_justify="left")
    for name, value in summary.items():
        if name in ("dataset", "run", "result") or value is None or value == {}:
            continue
        label = name.removesuffix("_bytes").replace("_", " ")
        table.add_row(label, f"{value / 1e6:,.0f} MB" if name.endswith("memory_bytes") else readable(value))
    out.print(table)


def readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(number)}" for key, number in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
