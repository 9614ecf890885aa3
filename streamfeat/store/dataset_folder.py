"""Whose a dataset folder is, and how it is emptied: nothing in a folder of others is changed or removed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from streamfeat.errors import ConfigError, DamagedError, LockedError, StorageError, storage_errors
from streamfeat.schema import EVENT_FIELDS
from streamfeat.store.files import TEMPORARY as TEMPORARY_FILE
from streamfeat.store.files import check_link, links_below, remove
from streamfeat.store.layout import (
    HISTORIES,
    ITEMS,
    MANIFEST,
    METADATA,
    RECEIPTS,
    REJECTED,
    TEMPORARY,
    USERS,
    WINDOWS,
)
from streamfeat.store.live_folders import is_held, remove_folder, run_folders
from streamfeat.store.marker import document, is_marked, mark

_FOLDERS = (HISTORIES, WINDOWS, RECEIPTS, TEMPORARY)  # that a build makes
_STORES = {WINDOWS: {"training", "validation"}, HISTORIES: {"offsets", "partition_offsets", *EVENT_FIELDS}}


def is_ours(root: Path) -> bool:
    """Whether a build has marked the folder, or a dataset's manifest lies there, even a damaged or a newer one."""
    # The keys: others also name files dataset.json.
    is_manifest = {"format_version", "fingerprint", "schema"} <= document(root, MANIFEST).keys()
    return is_manifest or is_marked(root, "dataset")


def has_links(root: Path) -> bool:
    """Whether a link stands in what a build makes, where none may be."""
    return bool(links_below(root, _FOLDERS))


def check_no_links(root: Path) -> None:
    """Raise DamagedError where `has_links`."""
    if links := links_below(root, _FOLDERS):
        raise DamagedError(
            f"{root / links[0]}: is a symbolic link; links are never followed: remove it and run the same command "
            "again (nothing was changed)"
        )


def check_linked_stores(root: Path) -> None:
    """Raise ConfigError where a store of the dataset is a link to a folder that holds anything else than that store,
    StorageError where it leads nowhere: what lies there would be written over."""
    for store, members in _STORES.items():
        path = root / store
        if not path.is_symlink():
            continue
        check_link(path)
        with storage_errors(path):
            names = {entry.name for entry in path.iterdir() if not TEMPORARY_FILE.fullmatch(entry.name)}
        attributes = document(root, f"{store}/{METADATA}").get("attributes")
        is_store = isinstance(attributes, dict) and "medium_offsets" in attributes
        if names and not (is_store and names <= members | {METADATA}):
            raise ConfigError(
                f"{path}: is a symbolic link to {path.readlink()}, where not only a build has written; empty that "
                "folder, or let the link lead to another one (nothing was changed)"
            )


def check_temporary(root: Path) -> None:
    """Raise DamagedError where `tmp` below `root` is no folder of its own: a link, a file."""
    path = root / TEMPORARY
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise DamagedError(
            f"{path}: is a symbolic link or no folder: remove it and run the same command again (nothing was changed)"
        )


def empty_folder(root: Path) -> None:
    """Remove a dataset or an unfinished build, nothing else; in between, the folder is ours and never looks whole.

    Raises LockedError while a live run trains on it.
    """
    runs = run_folders(root)
    if living := [run.name for run in runs if is_held(run)]:
        raise LockedError(f"{root}: live run {living[0]} trains here; wait for it or stop it")
    with storage_errors(root):
        mark(root, "dataset", emptying=True)
        for run in runs:
            remove_folder(run)
        for name in (MANIFEST, ITEMS, USERS, REJECTED, HISTORIES, WINDOWS, RECEIPTS, TEMPORARY):
            if name in _STORES and (root / name).is_symlink():
                # The folder that it leads to stays. Its metadata goes last: the store is known by that.
                for path in sorted((root / name).iterdir(), key=lambda path: path.name == METADATA):
                    remove(path)
            else:
                remove(root / name)


@contextlib.contextmanager
def nothing_removed(folder: Path) -> Iterator[None]:
    """Raise StorageError where a file is gone that was written here: nobody else has anything to do in `folder`."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            f"{folder}: {error.filename} was removed meanwhile; what was committed and is still there is kept: run the "
            "same command again, and let nothing clean up in that folder"
        ) from error
