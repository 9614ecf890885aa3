"""The marker `.streamfeat`, the first file in a folder of ours: what the folder holds, and where its links led."""

import json
from pathlib import Path
from typing import Any, Literal

from streamfeat.errors import StreamfeatError
from streamfeat.records import is_recordable, parse_object
from streamfeat.store.files import MAY_BE_LINKS, read_below, write_durably
from streamfeat.store.layout import MARKER

_MOST_BYTES = 2**30  # a manifest's


def mark(root: Path, holds: Literal["dataset", "run"], *, emptying: bool = False) -> None:
    """Write the marker: the folder is ours, whatever happens next; if `emptying`, what is in it is to go."""
    targets = {name: str((root / name).resolve()) for name in sorted(MAY_BE_LINKS) if (root / name).is_symlink()}
    links = {name: target for name, target in targets.items() if is_recordable(target)}
    places = {"folder": str(root.resolve()), "links": links} if links else {}
    says = {"holds": holds, "emptying": emptying, **places}
    if document(root, MARKER) != says:
        write_durably(root, MARKER, [json.dumps(says).encode() + b"\n"])


def leads_where_it_led(root: Path, name: str) -> bool | None:
    """Whether the link `name` leads to the folder that it led to when `root` was marked, and to that of no other.

    None where that cannot be said: it was no link then, or what it led to is gone (a disk has another name).
    """
    marker = document(root, MARKER)
    links, owner, target = marker.get("links"), marker.get("folder"), (root / name).resolve()
    led = links.get(name) if isinstance(links, dict) else None
    if not isinstance(led, str) or not isinstance(owner, str):
        return None
    if Path(led) != target:
        return False if Path(led).exists() else None
    # A copy of `root` has its marker, too; so has a `root` that was moved, and then nothing is where it was.
    return Path(owner) == root.resolve() or (Path(owner) / name).resolve() != target


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
