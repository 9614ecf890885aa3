"""Text that is safe to print: ids, titles and names come from files."""

import re
from collections.abc import Mapping, Sequence

# Control characters, changes of the writing direction, halves of surrogate pairs: none of them belongs on a terminal.
HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MOST_WIDTH = 32  # characters of a column


def harmless(text: str, *, lines: bool = True) -> str:
    """`text` with what could steer a terminal shown as its escape. Line ends and tabs stay where `lines` are wanted."""
    return HARMFUL.sub(lambda m: m[0] if lines and m[0] in "\n\t" else repr(m[0])[1:-1], text)


def aligned(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows of texts as lines, the columns' names first; a text of more than 32 characters is cut."""
    if not rows:
        return []
    lines: list[Mapping[str, str]] = [{name: name for name in rows[0]}, *rows]
    widths = {name: min(max(len(line[name]) for line in lines), _MOST_WIDTH) for name in rows[0]}
    return [
        "  ".join(harmless(line[name][:width], lines=False).ljust(width) for name, width in widths.items()).rstrip()
        for line in lines
    ]
