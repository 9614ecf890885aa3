"""Finds out whether a folder belongs to a build, and empties it. Folders and files of others are never changed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from streamfeat.errors import ConfigError, DamagedError, LockedError, StorageError, storage_errors
from streamfeat.schema import EVENT_FIELDS
from streamfeat.store.files import TEMPORARY as TEMPORARY_FILE
from streamfeat.store.files import check_link, is_own_folder, links_below, remove, size_and_digest
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
from streamfeat.store.marker import document, is_marked, leads_where_it_led, mark
from streamfeat.store.writer import read_receipt

_FOLDERS = (HISTORIES, WINDOWS, RECEIPTS, TEMPORARY)  # folders that a build creates
_TRIED_SHARDS = 3  # shards that are hashed to find out whose a store is
_STORES = {WINDOWS: {"training", "validation"}, HISTORIES: {"offsets", "partition_offsets", *EVENT_FIELDS}}


def is_ours(root: Path) -> bool:
    """Whether a build has marked the folder, or a dataset's manifest lies there, even a damaged or a newer one."""
    # The keys: others also name files dataset.json.
    is_manifest = {"format_version", "fingerprint", "schema"} <= document(root, MANIFEST).keys()
    return is_manifest or is_marked(root, "dataset")


def has_links(root: Path) -> bool:
    """Whether there is a symbolic link in the folders of a build at a place where none is allowed."""
    return bool(links_below(root, _FOLDERS))


def check_no_links(root: Path) -> None:
    """Raises DamagedError if `has_links`."""
    if links := links_below(root, _FOLDERS):
        raise DamagedError(
            f"{root / links[0]}: is a symbolic link, which is not followed; remove it and run the same command again "
            "(nothing was changed)"
        )


def check_linked_stores(root: Path) -> None:
    """Raises ConfigError if a store of the dataset is a link to a folder that holds other files than this store, or
    the store of another dataset (a build would overwrite them), StorageError if the link is broken."""
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
                f"{path}: is a symbolic link to {path.readlink()}, which holds files that no build wrote; empty that "
                "folder, or link to another one (nothing was changed)"
            )
        led = leads_where_it_led(root, store)
        if names and not (_holds_committed(root, store) if led is None else led):
            raise ConfigError(
                f"{path}: is a symbolic link to {path.readlink()}, which seems to hold the {store} of another "
                "dataset; link to this dataset's or to an empty folder; if you copied it, remove the old one first "
                "(nothing was changed)"
            )


def _holds_committed(root: Path, store: str) -> bool:
    """Whether one of the first shards of a store is as the receipts of `root` say, or the store has no shards."""
    tried = 0
    for path in sorted((root / RECEIPTS).glob("*.json")):
        receipt = read_receipt(root, path.stem)
        for record in receipt.files if receipt else ():
            if not record.path.startswith(f"{store}/") or record.path.endswith(METADATA):
                continue
            with contextlib.suppress(FileNotFoundError, DamagedError):
                if size_and_digest(root, record.path) == (record.size, record.sha256):
                    return True
                tried += 1
            if tried == _TRIED_SHARDS:
                return False
    files = (name for _, _, names in os.walk(root / store) for name in names)
    return all(name == METADATA or TEMPORARY_FILE.fullmatch(name) for name in files)


def check_temporary(root: Path) -> None:
    """Raises DamagedError if `tmp` below `root` is a link or a file."""
    path = root / TEMPORARY
    if os.path.lexists(path) and not is_own_folder(path):
        raise DamagedError(
            f"{path}: is a symbolic link or not a folder; remove it and run the same command again (nothing was "
            "changed)"
        )


def empty_folder(root: Path) -> None:
    """Removes a dataset or an unfinished build, and nothing else.

    The marker stays, so the folder belongs to a build all the time and never looks complete. Raises LockedError while a
    live run trains on the dataset.
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
                # The folder behind the link stays. Its metadata goes last, because it identifies the store.
                for path in sorted((root / name).iterdir(), key=lambda path: path.name == METADATA):
                    remove(path)
            else:
                remove(root / name)


@contextlib.contextmanager
def nothing_removed(folder: Path) -> Iterator[None]:
    """Turns a FileNotFoundError inside the block into a StorageError: another program removed a file in `folder`."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            f"{folder}: {error.filename} was removed by another program; the other files are kept: run the same "
            "command again, and let no other program remove files in this folder"
        ) from error
