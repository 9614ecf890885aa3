"""The marker `.streamfeat`. It is the first file in a folder of ours: it records what the folder holds and where the
folder's links led."""

import json
from pathlib import Path
from typing import Any, Literal

from streamfeat.errors import StreamfeatError
from streamfeat.records import is_recordable, parse_object
from streamfeat.store.files import MAY_BE_LINKS, read_below, write_durably
from streamfeat.store.layout import MARKER
from streamfeat.store.manifest import MAX_MANIFEST_BYTES


def mark(root: Path, holds: Literal["dataset", "run"], *, emptying: bool = False) -> None:
    """Writes the marker, so that the folder stays ours even after a kill. `emptying`: its content is being deleted."""
    targets = {name: str((root / name).resolve()) for name in sorted(MAY_BE_LINKS) if (root / name).is_symlink()}
    links = {name: target for name, target in targets.items() if is_recordable(target)}
    places = {"folder": str(root.resolve()), "links": links} if links else {}
    says = {"holds": holds, "emptying": emptying, **places}
    if document(root, MARKER) != says:
        write_durably(root, MARKER, [json.dumps(says).encode() + b"\n"])


def leads_where_it_led(root: Path, name: str) -> bool | None:
    """Whether the link `name` leads to the same folder as when `root` was marked, and this folder belongs to `root`.

    False if it leads elsewhere, or if `root` is a copy. None if that is unknown: it was not a link when `root` was
    marked, or its folder of that time is gone (for instance because a disk has another name now).
    """
    marker = document(root, MARKER)
    links, owner, target = marker.get("links"), marker.get("folder"), (root / name).resolve()
    led = links.get(name) if isinstance(links, dict) else None
    if not isinstance(led, str) or not isinstance(owner, str):
        return None
    if Path(led) != target:
        return False if Path(led).exists() else None
    # A copied `root` has the same marker. So has a moved one, but then the old place no longer leads to the target.
    return Path(owner) == root.resolve() or (Path(owner) / name).resolve() != target


def is_marked(root: Path, holds: Literal["dataset", "run"]) -> bool:
    """Whether the marker says that the folder holds a dataset, or a run."""
    return document(root, MARKER).get("holds") == holds


def is_being_emptied(root: Path) -> bool:
    """Whether an `--overwrite` was killed before the folder was empty."""
    return document(root, MARKER).get("emptying") is True


def document(root: Path, name: str) -> dict[str, Any]:
    """The JSON object in the file `name` below `root`; {} if it cannot be read."""
    try:
        return parse_object(read_below(root, name, MAX_MANIFEST_BYTES), name, "")
    except (OSError, StreamfeatError):
        return {}
