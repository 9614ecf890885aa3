"""How all commands print: results to stdout, everything else to stderr."""

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
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

# Outside a terminal tables are 160 characters wide, because other programs search and cut them.
WIDTH = None if os.isatty(1) else 160
out = PlainConsole(width=WIDTH)  # with --json, stdout holds one JSON object and nothing else


@contextlib.contextmanager
def outputs() -> Iterator[None]:
    """Inside the block, standard output and standard error are open and accept every character.

    At the end, text that could not be written is dropped. Otherwise Python's own flush would fail again and end with
    exit code 120.
    """
    for handle in range(3):  # a file of ours must not get the number of a closed one, because libraries write there
        try:
            os.fstat(handle)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper) and not _is_utf8(sys.stdout.encoding):
        sys.stdout.reconfigure(errors="backslashreplace")  # a character that it lacks must not lose the result
    try:
        yield
    finally:
        for handle, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                lead_nowhere(handle)


@contextlib.contextmanager
def refused_results() -> Iterator[None]:
    """Raises StorageError if standard output cannot be written, for instance because the disk is full. If its reader
    has closed it, the process ends with exit code 141, as with SIGPIPE. All text must be flushed inside the block."""
    try:
        yield
    except (OSError, SystemExit) as end:
        # typer and rich exit with 1 if they write into a closed pipe.
        error = end.__context__ if isinstance(end, SystemExit) and end.code == 1 else end
        if not isinstance(error, OSError):
            raise
        if usage := getattr(error.__context__, "exit_code", 0):  # typer could not write its message to standard error
            raise SystemExit(usage) from None
        if isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        try:
            print(flush=True)
        except OSError:
            raise refusal(error, Path("standard output")) from None
        raise  # the error is not from standard output: a bug of ours


def lead_nowhere(handle: int) -> None:
    """Drops all that is written to this open file from now on."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), handle)


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")


Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]


def show(as_json: bool, values: dict[str, Any], print_plainly: Callable[[], None]) -> None:
    if as_json:
        text = json.dumps(values, ensure_ascii=not _is_utf8(sys.stdout.encoding), allow_nan=False)
        print(HARMFUL.sub(lambda m: f"\\u{ord(m[0]):04x}", text))  # the same JSON
    else:
        print_plainly()
    sys.stdout.flush()  # if this fails, the command fails


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
