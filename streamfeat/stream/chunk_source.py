"""The source of a stream's windows: the built dataset, or a live run that is still being written."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from streamfeat.config import SplitName
from streamfeat.store.layout import WINDOWS
from streamfeat.store.manifest import Manifest
from streamfeat.store.reader import ArrayReader


class ChunkSource(Protocol):
    """The packings of one split. Several threads use it at the same time."""

    @property
    def live(self) -> bool:
        """Whether epoch e reads its own packing e. Otherwise the stored packings are used in turn."""

    def reader(self, packing: int, field: str) -> ArrayReader:
        """Opens an array of a packing. Raises DamagedError as `ArrayReader` does."""

    def has(self, packing: int, chunk: int) -> bool:
        """Whether a chunk can be read without waiting."""

    def wait_for(self, packing: int, chunk: int, stopped: threading.Event) -> None:
        """Waits until a chunk can be read. Raises `concurrent.futures.CancelledError` when `stopped` is set."""

    def advance(self, position: int, forget: Callable[[int, int], None]) -> None:
        """Records that `position` global batches were delivered to this rank.

        Calls `forget(packing, shard)` for each shard that no later batch reads. After that it may be deleted.
        """


class StoredSource:
    """The packings of a built dataset. All chunks can be read at any time."""

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
