"""Manifests that say something else and are sound all the same, for tests of what is checked behind the checksum."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamfeat.store.manifest import manifest_checksum


def edit_manifest(root: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Let `edit` change the manifest of the dataset `root`, and give it the checksum that fits."""
    file = root / "dataset.json"
    values = json.loads(file.read_text("utf-8"))
    del values["checksum"]
    edit(values)
    file.write_text(json.dumps({**values, "checksum": manifest_checksum(values)}), "utf-8")
