"""Where the windows of a stream come from: the dataset as built, or a live run that is still being written."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from streamfeat.config import SplitName
from streamfeat.store.layout import WINDOWS
from streamfeat.store.manifest import Manifest
from streamfeat.store.reader import ArrayReader


class ChunkSource(Protocol):
    """Packings of one split. Threads share it."""

    @property
    def live(self) -> bool:
        """Whether epoch e reads packing e, made for it, instead of one of a stored number of packings."""

    def reader(self, packing: int, field: str) -> ArrayReader:
        """An array of a packing, opened. Raises DamagedError as `ArrayReader` does."""

    def has(self, packing: int, chunk: int) -> bool:
        """Whether a chunk can be read at once."""

    def wait_for(self, packing: int, chunk: int, stopped: threading.Event) -> None:
        """Return once a chunk can be read. Raises `concurrent.futures.CancelledError` once `stopped` is set."""

    def advance(self, position: int, forget: Callable[[int, int], None]) -> None:
        """Take note that `position` global batches were delivered to this rank.

        `forget(packing, shard)` is called for each shard that no later batch reads, before it may be deleted.
        """


class StoredSource:
    """The packings of a built dataset: all there, for good."""

    live = False

    def __init__(self, root: Path, manifest: Manifest, split: SplitName) -> None:
        self._root, self._manifest, self._split = root, manifest, split

    def reader(self, packing: int, field: str) -> ArrayReader:
        array = f"{WINDOWS}/{self._split}/{packing}/{field}"
        return ArrayReader(self._root, array, self._manifest.shard_checksums(array))

    def has(self, packing: int, chunk: int) -> bool:
        return True

    def wait_for(self, packing: int, chunk: int, stopped: threading.Event) -> None:
        pass

    def advance(self, position: int, forget: Callable[[int, int], None]) -> None:
        pass
