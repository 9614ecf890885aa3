"""Before any worker starts: which files, how many rows, how many partitions; and whose folder OUT is."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError, StorageError
from streamfeat.events.formats import expand, recognise
from streamfeat.events.source import Source
from streamfeat.events.splits import Split, plan_splits
from streamfeat.schema import FORMAT_VERSION
from streamfeat.store.layout import MANIFEST, RECEIPTS, TEMPORARY
from streamfeat.store.manifest import Manifest, SourceFile, load_manifest
from streamfeat.store.writer import write_whole

PARTITION_ROWS = 400_000  # input rows of a partition: larger ones leave the cache while they are sorted
MAX_PARTITIONS = 4096
PLAN_FILE = f"{TEMPORARY}/plan.json"

# More packings only add to a dataset: they decide no byte that is there already.
_FREE = {"packings"}


@dataclass(frozen=True)
class Plan:
    """What a build will do, known before it starts."""

    root: Path
    config: BuildConfig
    sources: tuple[Source, ...]
    files: tuple[SourceFile, ...]
    digest: str


def make_plan(events: Sequence[str], out: str | Path, config: BuildConfig) -> Plan:
    """Recognise every event file. Raises ConfigError or DataError as `events.formats` does."""
    paths = expand(events)
    sources = tuple(recognise(path, config) for path in paths)
    files = tuple(_source_file(source) for source in sources)
    return Plan(Path(out), config, sources, files, digest_of(plan_facts(config, files)))


def _source_file(source: Source) -> SourceFile:
    status = Path(source.path).stat()
    return SourceFile(path=source.path, size=status.st_size, mtime_ns=status.st_mtime_ns, format=source.format)


def plan_facts(config: BuildConfig, files: Sequence[SourceFile]) -> dict[str, Any]:
    """Everything that the plan's digest covers."""
    return {
        "format_version": FORMAT_VERSION,
        "config": config.model_dump(mode="json", exclude=_FREE),
        "sources": [[Path(file.path).name, file.size, file.mtime_ns] for file in files],
    }


def digest_of(facts: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def split_sources(plan: Plan) -> tuple[list[Split], int]:
    """The splits of all files, and the number of partitions.

    Partitions follow from the data alone: the next power of two of rows / 400,000, at most 4096.
    """
    splits = plan_splits(plan.sources)
    num_rows = sum(split.num_rows for split in splits)
    if num_rows == 0:
        raise DataError(f"{', '.join(s.path for s in plan.sources)}: no rows; give a file that has events")
    wanted = -(-num_rows // PARTITION_ROWS)
    return splits, min(1 << (wanted - 1).bit_length(), MAX_PARTITIONS)


def claim_folder(plan: Plan, *, overwrite: bool) -> Manifest | None:
    """Make OUT ours: new, or left by a build of the same plan. Returns the manifest of a finished one.

    Raises ConfigError where the folder holds something else or another configuration's build.
    """
    root = plan.root
    ours = (root / MANIFEST).exists() or (root / PLAN_FILE).exists()
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root}: is a file; give a folder for the dataset")
    if root.exists() and not ours and any(root.iterdir()):
        raise ConfigError(
            f"{root}: is not empty and holds no dataset; give an empty or new folder (nothing was changed)"
        )
    if (root / MANIFEST).exists() and not overwrite:
        manifest = load_manifest(root)
        _check_same(root, plan_facts(manifest.config, manifest.sources), plan, "a dataset")
        return manifest
    try:
        if ours and overwrite:
            _empty_folder(root)
        if (root / PLAN_FILE).exists():
            _check_same(root, json.loads((root / PLAN_FILE).read_text("utf-8")), plan, "an unfinished build")
        (root / TEMPORARY).mkdir(parents=True, exist_ok=True)
        (root / RECEIPTS).mkdir(exist_ok=True)
    except PermissionError as error:
        raise StorageError(f"{error.filename}: no permission to write; choose another folder or change it") from None
    write_whole(root, PLAN_FILE, json.dumps(plan_facts(plan.config, plan.files), ensure_ascii=False).encode())
    return None


def _empty_folder(root: Path) -> None:
    """Remove a dataset or an unfinished build; never looks whole or foreign in between."""
    (root / MANIFEST).unlink(missing_ok=True)
    for path in (path for path in root.iterdir() if path.name != TEMPORARY):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(root / TEMPORARY, ignore_errors=True)


def _check_same(root: Path, found: dict[str, Any], plan: Plan, what: str) -> None:
    wanted = plan_facts(plan.config, plan.files)
    if found == wanted:
        return
    lines = [
        f"  {key}: there {found.get('config', {}).get(key)!r}, now {value!r}"
        for key, value in wanted["config"].items()
        if found.get("config", {}).get(key) != value
    ]
    lines += [
        f"  {key}: there {found.get(key)!r}, now {wanted[key]!r}"
        for key in ("format_version", "sources")
        if json.dumps(found.get(key)) != json.dumps(wanted[key])
    ]
    if lines:
        raise ConfigError(
            f"{root}: holds {what} of another configuration:\n" + "\n".join(lines)
            + "\ngive the same options, another folder, or --overwrite"
        )  # fmt: skip
