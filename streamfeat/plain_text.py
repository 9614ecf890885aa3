"""Makes text safe to print: ids, titles and names come from files."""

import re
from collections.abc import Mapping, Sequence

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
