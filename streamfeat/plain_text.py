"""Text for the user: times, and ids, titles and names from files, made safe to print."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

# Control characters, marks that change the writing direction, halves of surrogate pairs.
HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MOST_WIDTH = 32  # most characters in a column


def harmless(text: str, *, lines: bool = True) -> str:
    """`text` with escapes in place of characters that control a terminal. With `lines`, line ends and tabs stay."""
    return HARMFUL.sub(lambda m: m[0] if lines and m[0] in "\n\t" else repr(m[0])[1:-1], text)


def aligned(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows of texts as aligned lines, first the columns' names. Texts are cut after 32 characters."""
    if not rows:
        return []
    lines: list[Mapping[str, str]] = [{name: name for name in rows[0]}, *rows]
    widths = {name: min(max(len(line[name]) for line in lines), _MOST_WIDTH) for name in rows[0]}
    return [
        "  ".join(harmless(line[name][:width], lines=False).ljust(width) for name, width in widths.items()).rstrip()
        for line in lines
    ]


def date_text(unix_seconds: int) -> str:
    """A time, for instance 2024-05-01 12:00:00 UTC."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def as_html(text: str) -> str:
    """`text` for a notebook, which runs what is not escaped."""
    return html.escape(harmless(text))


class PrintedLines:
    """An object that a terminal and a notebook show as its `_lines`."""

    def _lines(self) -> Iterable[str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return harmless("\n".join(self._lines()))

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<pre>{as_html(repr(self))}</pre>"
