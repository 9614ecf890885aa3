"""The marker `.streamfeat`, the first file that is written into a folder of ours: it says what the folder holds."""

import json
from pathlib import Path
from typing import Any, Literal

from streamfeat.errors import StreamfeatError
from streamfeat.records import parse_object
from streamfeat.store.files import read_below, write_durably
from streamfeat.store.layout import MARKER

_MOST_BYTES = 2**30  # a manifest's


def mark(root: Path, holds: Literal["dataset", "run"], *, emptying: bool = False) -> None:
    """Write the marker: the folder is ours, whatever happens next; if `emptying`, what is in it is to go."""
    text = json.dumps({"holds": holds, "emptying": emptying}) + "\n"
    write_durably(root, MARKER, [text.encode()])


def is_marked(root: Path, holds: Literal["dataset", "run"]) -> bool:
    """Whether the folder was marked as one that holds this."""
    return document(root, MARKER).get("holds") == holds


def is_being_emptied(root: Path) -> bool:
    """Whether an `--overwrite` was killed before the folder was empty."""
    return document(root, MARKER).get("emptying") is True


def document(root: Path, name: str) -> dict[str, Any]:
    """The JSON object in the file `name` below `root`; {} where none can be read."""
    try:
        return parse_object(read_below(root, name, _MOST_BYTES), name, "")
    except (OSError, StreamfeatError):
        return {}
