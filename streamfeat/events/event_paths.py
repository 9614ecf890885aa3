"""Finds the event files: paths as given, the matches of globs, the files below folders."""

import glob
import gzip
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, StorageError, StreamfeatError
from streamfeat.events.formats import recognise
from streamfeat.events.lists.sites import check_sites
from streamfeat.events.role_names import NAMES, plain
from streamfeat.events.sample import GZIP_MAGIC
from streamfeat.events.source import Source

# Roles that may stand in the name of a folder. A file without a time of its own is refused in any case.
_PARTITION_ROLES = ("user", "item", "medium", "rating", "status")
_TRIED = 20  # files of a folder, beside one that cannot be read
_SMALL = 128  # bytes; a gzip file of nothing is smaller, with a long name in its header too
_DELTA_LOG = "_delta_log"


@dataclass(frozen=True)
class EventPaths:
    """Event files in the order in which they are read."""

    files: list[str]
    note: str = ""  # one line about files of globs and folders that were left out; "": none were
    folder_of: dict[str, str] = field(default_factory=dict)  # of each file that was found below a given folder


def expand(events: Sequence[str]) -> EventPaths:
    """Event files in the given order; matches of a glob and the files below a folder are sorted.

    Left out and counted are, of globs and folders, empty files and marks of programs that write parts (`_SUCCESS`,
    `_metadata`, `.crc`); of folders also all other names that begin with `_` or a dot. A file that is given by its
    name is never left out. Raises ConfigError if a glob or a folder has no file.
    """
    files: list[str] = []
    folder_of: dict[str, str] = {}
    left_out: dict[str, list[str]] = {"empty": [], "mark": []}
    for given in events:
        # For a name that the system does not accept, os.path.isdir returns False where Path.is_dir raises. The code
        # that opens the file reports the error.
        if os.path.isdir(given):  # noqa: PTH112
            found = _below(given, left_out)
            folder_of |= dict.fromkeys(found, given)
        elif not glob.has_magic(given) or os.path.exists(given):  # noqa: PTH110
            found = [given]
        else:
            found = _matches(given, left_out)
        files += found
    if not files:
        raise ConfigError("no event files given; name at least one file, folder or glob")
    return EventPaths(files, _note(left_out), folder_of)


def check_one_layout(paths: EventPaths, sources: Sequence[Source], columns: Mapping[str, str]) -> None:
    """Raises ConfigError if the files of one folder have different formats or columns, so that they are not parts of
    one log, if a folder's name holds a value that its files lack, or if lists of several sites have a medium in common.
    The lists of a folder may differ: each says all of itself.

    `sources` are those of the paths' files, in order, read with `columns` as the user gave them.
    """
    check_sites(sources)
    first: dict[str, Source] = {}
    for source in sources:
        folder = paths.folder_of.get(source.path)
        if not source.list_user:
            _check_folder_names(source, columns)
        if folder is None or source.list_user:
            continue
        other = first.setdefault(folder, source)
        if (source.format, source.columns) != (other.format, other.columns):
            raise ConfigError(
                f"{folder}: its files are not parts of one log: {other.path} has {_layout(other)}, {source.path} has "
                f"{_layout(source)}; {_remedy([other.path])}"
            )


def _check_folder_names(source: Source, columns: Mapping[str, str]) -> None:
    """Spark and Arrow write a column by which they partition into the names of folders alone, as `medium=anime`."""
    for name in Path(source.path).parent.parts:
        column, equals, value = name.partition("=")
        role = next((role for role in _PARTITION_ROLES if plain(column) in NAMES[role]), None) if equals else None
        if role and role not in {**source.columns, **source.constants, **columns}:
            raise ConfigError(
                f"{source.path}: its folder {name!r} names a value of the column {column!r}, which the file itself has "
                f"not; write the column into the files, or give the files of this folder alone with --constant "
                f"{role}={value}, or read none with --columns {role}="
            )


def in_folder(paths: EventPaths, path: str, error: ConfigError, config: BuildConfig) -> ConfigError:
    """The error of recognising the file `path`. If it was found below a folder, the error names files there that can be
    read: a folder of a data set may hold more than events. A file of which nothing but the unit of its times is not
    sure is one of events, too."""
    folder = paths.folder_of.get(path)
    others = [other for other in paths.files if folder and other != path and paths.folder_of.get(other) == folder]
    if not others:
        return error
    if any(_is_readable(path, config.model_copy(update={"time_unit": unit})) for unit in ("s", "dmy")):
        return error
    good = [other for other in others[:_TRIED] if _is_readable(other, config)]
    return ConfigError(f"{error}; or {_remedy(good)}") if good else error


def _is_readable(path: str, config: BuildConfig) -> bool:
    try:
        recognise(path, config)
    except StreamfeatError:
        return False
    return True


def _layout(source: Source) -> str:
    return f"{source.format} with {', '.join(source.columns.values())}"


def _remedy(files: Sequence[str]) -> str:
    return f"give files of events alone instead of their folder: {' '.join(map(shlex.quote, files))}"


def _matches(pattern: str, left_out: dict[str, list[str]]) -> list[str]:
    found = sorted(name for name in glob.glob(pattern, recursive=True) if not Path(name).is_dir())  # noqa: PTH207
    if not found:
        raise ConfigError(f"{pattern}: matches no file; check the path, and quote the pattern if the shell expands it")
    marks = [name for name in found if _is_mark(Path(name).name)]
    return _not_empty(pattern, [name for name in found if name not in marks], marks, left_out)


def _below(folder: str, left_out: dict[str, list[str]]) -> list[str]:
    found: list[str] = []
    marks: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        if _DELTA_LOG in folders:
            raise ConfigError(
                f"{parent}: a Delta table, in which not every Parquet file counts; write its current rows as plain "
                "Parquet and give those"
            )
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        for name in names:
            hidden = name.startswith(("_", ".")) or _is_mark(name)
            (marks if hidden else found).append(os.path.join(parent, name))  # noqa: PTH118
    if not found:
        raise ConfigError(f"{folder}: a folder without event files; give the folder that holds them, or the files")
    return _not_empty(folder, sorted(found), marks, left_out)


def _refuse(error: OSError) -> None:
    raise StorageError(f"{error.filename}: cannot be read ({error.strerror}); grant access or give another folder")


def _is_mark(name: str) -> bool:
    """Whether another program wrote the file beside its parts: `_SUCCESS`, `_metadata`, `_committed_1`, checksums."""
    return (name.startswith("_") and "." not in name) or name.endswith(".crc")


def _not_empty(given: str, found: list[str], marks: list[str], left_out: dict[str, list[str]]) -> list[str]:
    empty = list(_empty(found))
    if len(empty) == len(found):
        raise ConfigError(f"{given}: all of its {len(found) + len(marks)} files are empty or marks; write them again")
    left_out["empty"] += empty
    left_out["mark"] += marks
    return [name for name in found if name not in empty]


def _empty(names: Sequence[str]) -> Iterator[str]:
    """Those of 0 bytes, also in gzip, of blank lines and of an empty JSON array.

    A file that cannot be read is not empty: opening it says why.
    """
    for name in names:
        try:
            if not os.path.isfile(name) or os.stat(name).st_size > _SMALL:  # noqa: PTH113, PTH116
                continue
            data = Path(name).read_bytes()
            if data.startswith(GZIP_MAGIC):
                data = gzip.decompress(data)
        except (OSError, EOFError, ValueError):
            continue
        if data.strip() in (b"", b"[]"):
            yield name


def _note(left_out: dict[str, list[str]]) -> str:
    words = {"empty": ("empty file", "empty files"), "mark": ("mark of another program", "marks of other programs")}
    parts = [
        f"{len(names)} {words[kind][len(names) > 1]} ({Path(names[0]).name}{', …' if len(names) > 1 else ''})"
        for kind, names in left_out.items()
        if names
    ]
    return f"left out: {' and '.join(parts)}" if parts else ""
