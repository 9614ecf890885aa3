"""Edited manifests with a right checksum, for tests of the other checks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamfeat.store.manifest import manifest_checksum


def set_shard_checksums(root: Path, crc32c: str | None) -> None:
    """Sets `crc32c` of every shard's record in the manifest and in the receipts; None removes it."""

    def change(receipt: dict[str, Any]) -> None:
        for record in receipt["files"]:
            if record.pop("crc32c", None) and crc32c is not None:
                record["crc32c"] = crc32c

    edit_manifest(root, lambda values: [change(receipt) for receipt in values["receipts"]])
    for file in (root / "receipts").glob("*.json"):
        receipt = json.loads(file.read_text("utf-8"))
        change(receipt)
        file.write_text(json.dumps(receipt, indent=1, sort_keys=True) + "\n", "utf-8")


def edit_manifest(root: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Calls `edit` to change the manifest of the dataset `root`, and updates its checksum."""
    file = root / "dataset.json"
    values = json.loads(file.read_text("utf-8"))
    del values["checksum"]
    edit(values)
    file.write_text(json.dumps({**values, "checksum": manifest_checksum(values)}), "utf-8")
