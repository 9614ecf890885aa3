"""What all commands print with: results on stdout, everything else on stderr."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from streamfeat.errors import refusal
from streamfeat.plain_text import HARMFUL
from streamfeat.plain_text import harmless as harmless
from streamfeat.progress_bars import PLAIN as PLAIN
from streamfeat.progress_bars import PlainConsole
from streamfeat.progress_bars import err as err

# Elsewhere than in a terminal, lines are as long as they are: tables are searched and cut there.
WIDTH = None if os.isatty(1) else 160
out = PlainConsole(width=WIDTH)  # with --json, stdout holds one JSON object and nothing else


class _Results(io.FileIO):
    """Standard output: where a disk refuses, that is an error; where its reader is gone, the end, as by SIGPIPE."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except SystemExit:  # a signal, while whoever reads it takes its time: Python's own flush would wait once more
            _lead_nowhere(self)
            raise
        except OSError as error:
            _lead_nowhere(self)
            if isinstance(error, BrokenPipeError):
                raise SystemExit(128 + signal.SIGPIPE) from None
            raise refusal(error, Path("standard output")) from None


class _Notes(io.FileIO):
    """Standard error: what cannot be said there ends no work."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            _lead_nowhere(self)
            return len(data)


def _lead_nowhere(stream: io.FileIO) -> None:
    """After a refusal, so that the rest of a buffer does not fail once more in Python's own flush at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def watch_outputs() -> None:
    """From now on a full disk under standard output is a StorageError, a reader that is gone ends the process with 141,
    and standard error never fails."""
    for handle in range(3):  # a file of ours must not get the number of a closed one: libraries write there
        try:
            os.fstat(handle)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _text_of(_Results(1, "w", closefd=False), sys.stdout)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _text_of(_Notes(2, "w", closefd=False), sys.stderr)


def _text_of(raw: io.FileIO, like: Any) -> io.TextIOWrapper:
    encoding, errors = (like.encoding, like.errors) if like is not None else ("utf-8", "backslashreplace")
    if not _is_utf8(encoding):  # an id or a dash that it lacks must not cost the result
        errors = "backslashreplace"
    is_lined = like is not None and like.line_buffering
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=is_lined)


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")


Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]


def show(as_json: bool, values: dict[str, Any], print_plainly: Callable[[], None]) -> None:
    if as_json:
        text = json.dumps(values, ensure_ascii=not _is_utf8(sys.stdout.encoding), allow_nan=False)
        sys.stdout.write(HARMFUL.sub(lambda m: f"\\u{ord(m[0]):04x}", text) + "\n")  # the same JSON
    else:
        print_plainly()


def typed(ctx: typer.Context) -> dict[str, Any]:
    """The options that were typed: a default is no wish."""
    return {name: value for name, value in ctx.params.items()
            if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}  # fmt: skip


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
