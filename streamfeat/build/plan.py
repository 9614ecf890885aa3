"""Before any worker starts: which files, how many rows, how many partitions; and whose folder OUT is."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DamagedError, DataError, LockedError
from streamfeat.events.formats import expand, recognise
from streamfeat.events.source import Source
from streamfeat.events.splits import Split, plan_splits
from streamfeat.schema import FORMAT_VERSION
from streamfeat.store.documents import parse_object
from streamfeat.store.files import LOCK, refusal, storage_errors
from streamfeat.store.layout import (
    HISTORIES,
    ITEMS,
    MANIFEST,
    RECEIPTS,
    REJECTED,
    TEMPORARY,
    USERS,
    WINDOWS,
)
from streamfeat.store.live_folders import is_held, remove_folder, run_folders
from streamfeat.store.manifest import Manifest, SourceFile, load_manifest
from streamfeat.store.writer import read_receipt, write_whole

PARTITION_ROWS = 400_000  # input rows of a partition: larger ones leave the cache while they are sorted
MAX_PARTITIONS = 4096
PLAN_FILE = f"{TEMPORARY}/plan.json"

# What decides no byte that is there already: more packings only add, and the bound on bad rows only stops.
_FREE = {"packings", "max_rejected"}


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

    The caller holds the folder's lock. Raises ConfigError where the folder holds another configuration's build.
    """
    root = plan.root
    if (root / MANIFEST).exists() and not overwrite:
        manifest = load_manifest(root)
        _check_same(root, plan_facts(manifest.config, manifest.sources), plan, "a dataset")
        return manifest
    if overwrite:
        _empty_folder(root)
    elif (root / PLAN_FILE).exists():
        remedy = "build with --overwrite"
        with storage_errors(root / PLAN_FILE):
            data = (root / PLAN_FILE).read_bytes()
        _check_same(root, parse_object(data, str(root / PLAN_FILE), remedy), plan, "an unfinished build")
    # The plan is the first file of a build: with it, the folder is ours whatever happens next.
    write_whole(root, PLAN_FILE, json.dumps(plan_facts(plan.config, plan.files), ensure_ascii=False).encode())
    with storage_errors(root):
        (root / RECEIPTS).mkdir(exist_ok=True)
    return None


def check_folder(plan: Plan, *, overwrite: bool) -> None:
    """Make the folder OUT where there is none. Raises ConfigError for a folder that no build of ours made.

    Nothing is changed in a folder that is not ours, and event files never lie in what `overwrite` may empty.
    """
    root = plan.root
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root}: is a file; give a folder for the dataset")
    try:
        root.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in root.iterdir()}
    except (NotADirectoryError, FileExistsError, FileNotFoundError):
        raise ConfigError(f"{root}: no folder can be made here; a file or a broken link stands on the way") from None
    except OSError as error:
        raise refusal(error, root) from None
    ours = (root / PLAN_FILE).is_file() or _is_manifest(root / MANIFEST) or _has_receipts(plan)
    if not ours and not all(name == LOCK or _is_bare(root / name) for name in names):
        raise ConfigError(
            f"{root}: is not empty and holds no dataset; give an empty or new folder (nothing was changed)"
        )
    inside = [source.path for source in plan.sources if Path(source.path).resolve().is_relative_to(root.resolve())]
    if inside and overwrite:
        raise ConfigError(f"{inside[0]}: lies inside {root}, which --overwrite empties; move it elsewhere")


def _is_manifest(path: Path) -> bool:
    """Whether a file is a dataset's manifest, even a damaged or a newer one: others also name files dataset.json."""
    try:
        values = parse_object(path.read_bytes(), str(path), "")
    except (OSError, DamagedError):
        return False
    return {"format_version", "fingerprint", "schema"} <= values.keys()


def _is_bare(folder: Path) -> bool:
    """Whether it is a folder that a build makes first, and empty: what is left where `tmp/` was removed at once."""
    return folder.name in (RECEIPTS, TEMPORARY) and folder.is_dir() and not any(folder.iterdir())


def _has_receipts(plan: Plan) -> bool:
    """Whether tasks of this very plan were committed here: then it is ours, though `tmp/` was removed."""
    tasks = (path.stem for path in (plan.root / RECEIPTS).glob("split-*.json"))
    return any(receipt is not None and receipt.digest == plan.digest
               for receipt in (read_receipt(plan.root, task) for task in tasks))  # fmt: skip


def _empty_folder(root: Path) -> None:
    """Remove a dataset or an unfinished build, nothing else; in between, the folder is ours and never looks whole.

    Raises LockedError while a live run trains on it.
    """
    runs = run_folders(root)
    if living := [run.name for run in runs if is_held(run)]:
        raise LockedError(f"{root}: live run {living[0]} trains here; wait for it or stop it")
    for run in runs:
        remove_folder(run)
    write_whole(root, PLAN_FILE, b"{}")
    with storage_errors(root):
        (root / MANIFEST).unlink(missing_ok=True)
        for path in (root / name for name in (ITEMS, USERS, REJECTED, HISTORIES, WINDOWS, RECEIPTS)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for path in (root / TEMPORARY).iterdir():
            if path.name != Path(PLAN_FILE).name:
                path.unlink()


def _check_same(root: Path, found: dict[str, Any], plan: Plan, what: str) -> None:
    wanted = plan_facts(plan.config, plan.files)
    if json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True) or not found:
        return
    config = found.get("config", {})
    lines = [
        f"  {key}: there {config.get(key)!r}, now {value!r}"
        for key, value in wanted["config"].items()
        if config.get(key) != value
    ]
    if found.get("format_version") != FORMAT_VERSION:
        lines.append(f"  format_version: there {found.get('format_version')!r}, now {FORMAT_VERSION}")
    lines += _changed_sources({name: rest for name, *rest in found.get("sources", [])}, wanted["sources"])
    raise ConfigError(
        f"{root}: holds {what} of another configuration:\n" + "\n".join(lines)
        + "\ngive the same options and files, another folder, or --overwrite"
    )  # fmt: skip


def _changed_sources(found: dict[str, list[int]], wanted: list[list[Any]]) -> list[str]:
    """At most five lines on event files that differ."""
    names = {name for name, *_ in wanted}
    lines = [f"  {name}: was given there, is not now" for name in found if name not in names]
    for name, size, mtime in wanted:
        if name not in found:
            lines.append(f"  {name}: was not given there")
        elif found[name] != [size, mtime]:
            lines.append(f"  {name}: changed since (there {found[name][0]} bytes, now {size}, or another time)")
    if not lines and list(found) != [name for name, *_ in wanted]:
        lines.append("  sources: given in another order")
    return lines[:5]
