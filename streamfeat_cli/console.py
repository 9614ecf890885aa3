"""What all commands print with: results on stdout, everything else on stderr."""

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

# Elsewhere than in a terminal, lines are as long as they are: tables are searched and cut there.
WIDTH = None if os.isatty(1) else 160
out = PlainConsole(width=WIDTH)  # with --json, stdout holds one JSON object and nothing else


@contextlib.contextmanager
def outputs() -> Iterator[None]:
    """Inside, standard output and standard error are open and take any character. What they refused is dropped at the
    end: Python's own flush would refuse once more, and end with exit code 120."""
    for handle in range(3):  # a file of ours must not get the number of a closed one: libraries write there
        try:
            os.fstat(handle)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper) and not _is_utf8(sys.stdout.encoding):
        sys.stdout.reconfigure(errors="backslashreplace")  # an id or a dash that it lacks must not cost the result
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
    """Inside, a full disk under standard output is a StorageError; where its reader is gone, the process ends with 141,
    as by SIGPIPE. What is written must be flushed inside."""
    try:
        yield
    except (OSError, SystemExit) as end:
        # typer and rich exit with 1 where they write into a closed pipe.
        error = end.__context__ if isinstance(end, SystemExit) and end.code == 1 else end
        if not isinstance(error, OSError):
            raise
        if usage := getattr(error.__context__, "exit_code", 0):  # typer could not say on standard error what is wrong
            raise SystemExit(usage) from None
        if isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        try:
            print(flush=True)
        except OSError:
            raise refusal(error, Path("standard output")) from None
        raise  # not of the output: a bug of ours


def lead_nowhere(handle: int) -> None:
    """From now on all that is written to this open file is dropped."""
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
    sys.stdout.flush()  # what it refuses is an error of this command


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
