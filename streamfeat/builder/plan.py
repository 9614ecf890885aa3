"""The plan of a build: its files, rows and partitions. Also checks that OUT may be used."""

import hashlib
import json
import os
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
from streamfeat.events.event_paths import EventPaths, check_one_layout, expand, in_folder
from streamfeat.events.formats import recognise
from streamfeat.events.lists.sites import without_most_lists
from streamfeat.events.source import Source
from streamfeat.events.splits import Split, plan_splits, rows_notes
from streamfeat.records import Frozen, is_recordable, read_back
from streamfeat.schema import FORMAT_VERSION
from streamfeat.store.dataset_folder import (
    check_linked_stores,
    check_no_links,
    empty_folder,
    has_links,
    is_ours,
)
from streamfeat.store.files import check_link, foreign_names, read_below
from streamfeat.store.layout import MANIFEST, RECEIPTS, TEMPORARY
from streamfeat.store.manifest import Manifest, SourceFile, load_manifest
from streamfeat.store.marker import is_being_emptied, mark
from streamfeat.store.writer import write_whole

PARTITION_ROWS = 400_000  # input rows of a partition: larger ones do not fit in the cache while they are sorted
MAX_PARTITIONS = 4096
PLAN_FILE = f"{TEMPORARY}/plan.json"
MAX_PLAN_BYTES = 2**28

# Options that change no existing file: more packings only add files, and the limit of bad rows only stops a build.
_FREE = {"packings", "max_rejected"}


class PlanFacts(Frozen):
    """The facts that determine the bytes of a dataset. The plan's digest covers them; `tmp/plan.json` holds them."""

    known_format = ("format_version", FORMAT_VERSION)

    format_version: int
    config: dict[str, JsonValue]  # an older build may have other keys
    sources: tuple[tuple[str, int, int], ...]  # every event file, in order: name, bytes, modification time in ns


@dataclass(frozen=True)
class Plan:
    """The plan of a build, made before it starts."""

    root: Path
    config: BuildConfig
    sources: tuple[Source, ...]
    files: tuple[SourceFile, ...]
    facts: PlanFacts
    digest: str  # of the facts
    notes: tuple[str, ...] = ()  # how each file is read, and which ones of globs and folders are left out


def make_plan(events: Sequence[str], out: str | Path, config: BuildConfig) -> Plan:
    """Recognises every event file. Raises ConfigError or DataError as `events.formats` does."""
    for given in filter(os.path.isdir, events):
        if is_ours(Path(given)):
            raise ConfigError(f"{given}: a dataset, not a folder of events; give the event files themselves")
    paths = expand(events)
    sources = tuple(_recognise(paths, path, config) for path in paths.files)
    check_one_layout(paths, sources, config.columns)
    files = tuple(_source_file(source) for source in sources)
    facts = plan_facts(config, files)
    digest = digest_of(facts.model_dump(mode="json"))
    told, more = without_most_lists(sources)
    notes = [*(f"{source.path}: {source.note}" for source in told), *filter(None, (more, paths.note))]
    return Plan(Path(out), config, sources, files, facts, digest, tuple(notes))


def _recognise(paths: EventPaths, path: str, config: BuildConfig) -> Source:
    try:
        return recognise(path, config)
    except ConfigError as error:
        raise in_folder(paths, path, error, config) from None


def _source_file(source: Source) -> SourceFile:
    status = Path(source.path).stat()
    return SourceFile(path=source.path, size=status.st_size, mtime_ns=status.st_mtime_ns, format=source.format)


def check_unchanged(files: Sequence[SourceFile]) -> None:
    """Raises DataError if an event file has changed since it was planned: parts of both versions may have been read."""
    for file in files:
        try:
            status = Path(file.path).stat()
        except OSError as error:
            raise DataError(
                f"{file.path}: was removed while it was read ({error.strerror}); restore it and run the same command "
                "again"
            ) from None
        if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
            raise DataError(
                f"{file.path}: was changed while it was read; let no program write to it and build again with "
                "--overwrite"
            )


def plan_facts(config: BuildConfig, files: Sequence[SourceFile]) -> PlanFacts:
    """The facts of a build of `files`, finished or not."""
    return PlanFacts(
        format_version=FORMAT_VERSION,
        config=config.model_dump(mode="json", exclude=_FREE),
        sources=tuple((Path(file.path).name, file.size, file.mtime_ns) for file in files),
    )


def digest_of(facts: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def split_sources(plan: Plan) -> tuple[list[Split], int, list[str]]:
    """The splits of all files, the number of partitions, and what the user should know about the files' rows.

    The number of partitions depends only on the data: the next power of two from rows / 400,000, at most 4096.
    """
    splits = plan_splits(plan.sources)
    num_rows = sum(split.num_rows for split in splits)
    if num_rows == 0:
        raise DataError(f"{', '.join(s.path for s in plan.sources)}: no rows; give a file that has events")
    wanted = -(-num_rows // PARTITION_ROWS)
    return splits, min(1 << (wanted - 1).bit_length(), MAX_PARTITIONS), rows_notes(splits)


def claim_folder(plan: Plan, *, overwrite: bool) -> Manifest | None:
    """Prepares the folder OUT for this build. Returns the manifest if the same build is finished there.

    The caller holds the folder's lock. Without `overwrite`, raises ConfigError if the folder holds a build of another
    configuration, DamagedError if there is a symbolic link in it; `overwrite` removes both.
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
    """Whether the content of the folder must be removed.

    With `overwrite`: always, except for an unfinished build of the same plan. Without: if a killed `overwrite` was
    removing it. So running the same command again finishes a killed one and keeps its committed tasks. Raises
    ConfigError, DamagedError or FormatVersionError if another or unreadable plan needs `overwrite`.
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
                f"can finish; this one makes format {FORMAT_VERSION}: build with --overwrite"
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
    """Creates the folder OUT if missing. Raises ConfigError for a folder that no build made; it is not changed.

    Also raises ConfigError if an event file is inside a folder that `overwrite` would empty.
    """
    root = plan.root
    if not is_recordable(str(root)):
        raise ConfigError(f"{str(root)!r}: DuckDB cannot use a folder whose name is not UTF-8; give another one")
    check_link(root)
    with storage_errors(root):
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{root}: is a file; give a folder for the dataset")
    try:
        root.mkdir(parents=True, exist_ok=True)
        foreign = foreign_names(root)
    except (NotADirectoryError, FileExistsError, FileNotFoundError):
        raise ConfigError(
            f"{root}: cannot make this folder, because a part of the path is a file or a broken link; give another one"
        ) from None
    except OSError as error:
        raise refusal(error, root) from None
    # Unfinished builds of earlier versions have no marker.
    if foreign and not is_ours(root) and not (root / PLAN_FILE).is_file():
        raise ConfigError(
            f"{root}: is not empty and does not hold a dataset; give an empty or new folder (nothing was changed)"
        )
    check_linked_stores(root)
    inside = [source.path for source in plan.sources if Path(source.path).resolve().is_relative_to(root.resolve())]
    if inside and overwrite:
        raise ConfigError(f"{inside[0]}: is inside {root}, which --overwrite empties; move it to another folder")


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
        f"{root}: holds {what} of another configuration:\n"
        + "\n".join(lines)
        + "\ngive the same options and files, another folder, or --overwrite"
    )


def _changed_sources(found: Sequence[tuple[str, int, int]], wanted: Sequence[tuple[str, int, int]]) -> list[str]:
    """At most five lines about event files that differ. Of files with equal names, the n-th are compared."""
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
        return f"  {name}: was given there, but not now"
    if before is None:
        return f"  {name}: was not given there"
    return f"  {name}: has changed (there {before} bytes, now {now}, or another modification time)"
