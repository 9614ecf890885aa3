"""Before any worker starts: which files, how many rows, how many partitions; and whose folder OUT is."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from streamfeat.config import BuildConfig
from streamfeat.errors import (
    ConfigError,
    DamagedError,
    DataError,
    FormatVersionError,
    refusal,
    storage_errors,
)
from streamfeat.events.formats import expand, recognise
from streamfeat.events.source import Source
from streamfeat.events.splits import Split, plan_splits
from streamfeat.records import Frozen, is_recordable, read_back
from streamfeat.schema import FORMAT_VERSION
from streamfeat.store.dataset_folder import (
    check_linked_stores,
    check_no_links,
    empty_folder,
    has_links,
    is_ours,
)
from streamfeat.store.files import foreign_names, read_below
from streamfeat.store.layout import MANIFEST, RECEIPTS, TEMPORARY
from streamfeat.store.manifest import Manifest, SourceFile, load_manifest
from streamfeat.store.marker import is_being_emptied, mark
from streamfeat.store.writer import write_whole

PARTITION_ROWS = 400_000  # input rows of a partition: larger ones leave the cache while they are sorted
MAX_PARTITIONS = 4096
PLAN_FILE = f"{TEMPORARY}/plan.json"
MAX_PLAN_BYTES = 2**28

# What decides no byte that is there already: more packings only add, and the bound on bad rows only stops.
_FREE = {"packings", "max_rejected"}


class PlanFacts(Frozen):
    """What decides the bytes of a dataset: what the plan's digest covers, and what `tmp/plan.json` holds."""

    known_format = ("format_version", FORMAT_VERSION)

    format_version: int
    config: dict[str, JsonValue]  # an older build's has other keys
    sources: tuple[tuple[str, int, int], ...]  # every event file, in order: name, bytes, time of its change in ns


@dataclass(frozen=True)
class Plan:
    """What a build will do, known before it starts."""

    root: Path
    config: BuildConfig
    sources: tuple[Source, ...]
    files: tuple[SourceFile, ...]
    facts: PlanFacts
    digest: str  # of the facts


def make_plan(events: Sequence[str], out: str | Path, config: BuildConfig) -> Plan:
    """Recognise every event file. Raises ConfigError or DataError as `events.formats` does."""
    paths = expand(events)
    sources = tuple(recognise(path, config) for path in paths)
    files = tuple(_source_file(source) for source in sources)
    facts = plan_facts(config, files)
    return Plan(Path(out), config, sources, files, facts, digest_of(facts.model_dump(mode="json")))


def _source_file(source: Source) -> SourceFile:
    status = Path(source.path).stat()
    return SourceFile(path=source.path, size=status.st_size, mtime_ns=status.st_mtime_ns, format=source.format)


def check_unchanged(files: Sequence[SourceFile]) -> None:
    """Raise DataError where an event file is no longer what was planned: what was read of it may be of both."""
    for file in files:
        try:
            status = Path(file.path).stat()
        except OSError as error:
            raise DataError(
                f"{file.path}: went away while it was read ({error.strerror}); put it back, then run this again"
            ) from None
        if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
            raise DataError(
                f"{file.path}: changed while it was read; let nothing write to it and build again with --overwrite"
            )


def plan_facts(config: BuildConfig, files: Sequence[SourceFile]) -> PlanFacts:
    """The facts of a build of `files`, which may be finished."""
    return PlanFacts(
        format_version=FORMAT_VERSION,
        config=config.model_dump(mode="json", exclude=_FREE),
        sources=tuple((Path(file.path).name, file.size, file.mtime_ns) for file in files),
    )


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

    The caller holds the folder's lock. Raises ConfigError where the folder holds another configuration's build,
    DamagedError where a symbolic link stands in it: `overwrite` removes both.
    """
    root = plan.root
    if not overwrite:
        check_no_links(root)
        if (root / MANIFEST).exists():
            manifest = load_manifest(root)
            _check_same(root, plan_facts(manifest.config, manifest.sources), plan, "a dataset")
            return manifest
    if _is_to_go(plan, overwrite=overwrite):
        empty_folder(root)
    mark(root, "dataset")
    write_whole(root, PLAN_FILE, plan.facts.model_dump_json().encode())
    with storage_errors(root):
        (root / RECEIPTS).mkdir(exist_ok=True)
    return None


def _is_to_go(plan: Plan, *, overwrite: bool) -> bool:
    """Whether what lies in the folder is to be removed.

    With `overwrite`, all but an unfinished build of this very plan; without, what a killed `overwrite` was removing.
    So the same command again finishes the one that was killed, and keeps what that had committed. Raises ConfigError
    or DamagedError where another plan, or none that can be read, needs `overwrite`.
    """
    root = plan.root
    if is_being_emptied(root) or (overwrite and ((root / MANIFEST).exists() or has_links(root))):
        return True
    try:
        data = read_below(root, PLAN_FILE, MAX_PLAN_BYTES)
        found = read_back(PlanFacts, data, root / PLAN_FILE, "build with --overwrite")
        if found.format_version != FORMAT_VERSION:
            raise FormatVersionError(
                f"{root}: holds an unfinished build of format {found.format_version}, which only an older streamfeat "
                f"goes on with; this one makes format {FORMAT_VERSION}: build with --overwrite"
            )
        _check_same(root, found, plan, "an unfinished build")
    except FileNotFoundError:
        return overwrite
    except (ConfigError, DamagedError, FormatVersionError):
        if overwrite:
            return True
        raise
    return False


def check_folder(plan: Plan, *, overwrite: bool) -> None:
    """Make the folder OUT where there is none. Raises ConfigError for a folder that no build of ours made.

    Nothing is changed in a folder that is not ours, and event files never lie in what `overwrite` may empty.
    """
    root = plan.root
    if not is_recordable(str(root)):
        raise ConfigError(f"{str(root)!r}: DuckDB works in no folder whose name is no UTF-8; give another one")
    with storage_errors(root):
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{root}: is a file; give a folder for the dataset")
    try:
        root.mkdir(parents=True, exist_ok=True)
        foreign = foreign_names(root)
    except (NotADirectoryError, FileExistsError, FileNotFoundError):
        raise ConfigError(f"{root}: no folder can be made here; a file or a broken link stands on the way") from None
    except OSError as error:
        raise refusal(error, root) from None
    # Unfinished builds of earlier versions have no marker.
    if foreign and not is_ours(root) and not (root / PLAN_FILE).is_file():
        raise ConfigError(
            f"{root}: is not empty and holds no dataset; give an empty or new folder (nothing was changed)"
        )
    check_linked_stores(root)
    inside = [source.path for source in plan.sources if Path(source.path).resolve().is_relative_to(root.resolve())]
    if inside and overwrite:
        raise ConfigError(f"{inside[0]}: lies inside {root}, which --overwrite empties; move it elsewhere")


def _check_same(root: Path, found: PlanFacts, plan: Plan, what: str) -> None:
    if found == plan.facts:
        return
    there, now = found.config, plan.facts.config
    lines = [
        f"  {key}: there {there.get(key)!r}, now {now.get(key)!r}"
        for key in now | there
        if there.get(key) != now.get(key)
    ]
    lines += _changed_sources(found.sources, plan.facts.sources)
    raise ConfigError(
        f"{root}: holds {what} of another configuration:\n" + "\n".join(lines)
        + "\ngive the same options and files, another folder, or --overwrite"
    )  # fmt: skip


def _changed_sources(found: Sequence[tuple[str, int, int]], wanted: Sequence[tuple[str, int, int]]) -> list[str]:
    """At most five lines on event files that differ. Files may share a name: the n-th there is the n-th now."""
    gone, new = Counter(found) - Counter(wanted), Counter(wanted) - Counter(found)
    if not gone and not new:
        return [] if list(found) == list(wanted) else ["  sources: given in another order"]
    pairs: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, sources in enumerate((gone, new)):
        for name, size, _ in sources.elements():
            pairs[name][side].append(size)
    lines = [_change(name, before, now) for name, sizes in pairs.items() for before, now in zip_longest(*sizes)]
    return lines[:5]


def _change(name: str, before: int | None, now: int | None) -> str:
    if now is None:
        return f"  {name}: was given there, is not now"
    if before is None:
        return f"  {name}: was not given there"
    return f"  {name}: changed since (there {before} bytes, now {now}, or another time)"
