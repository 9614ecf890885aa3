"""Decoded chunks of one packing, in memory that is used again and again."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import SplitName
from streamfeat.errors import DamagedError
from streamfeat.store.layout import WINDOWS
from streamfeat.store.manifest import Manifest
from streamfeat.store.reader import ArrayReader


class ChunkPool:
    """`num_slots` slots, each of one decoded chunk of every token field. Threads may fill different slots.

    `arrays` maps a field to (num_slots * chunk_windows, window_len) of its stored dtype.
    """

    def __init__(self, root: Path, manifest: Manifest, split: SplitName, num_slots: int) -> None:
        self._root = root
        self._manifest = manifest
        self._split: SplitName = split
        self._packing = -1  # none is open
        self._readers: dict[str, ArrayReader] = {}
        self.chunk_windows = manifest.splits[split].chunk_windows
        shape = (num_slots * self.chunk_windows, manifest.schema_.window_len)
        self.arrays = {field.name: np.empty(shape, field.dtype) for field in manifest.schema_.token_fields()}

    def open(self, packing: int) -> None:
        """Decode from this packing from now on. DamagedError where its arrays are not what the manifest says."""
        if packing == self._packing:
            return
        self.close()
        for field in self._manifest.schema_.token_fields():
            path = self._root / WINDOWS / self._split / str(packing) / field.name
            self._readers[field.name] = self._checked(ArrayReader(path), path, field.dtype)
        self._packing = packing

    def _checked(self, reader: ArrayReader, path: Path, dtype: np.dtype[Any]) -> ArrayReader:
        counts = self._manifest.splits[self._split]
        expected = (
            (counts.windows, self._manifest.schema_.window_len), dtype, counts.chunk_windows, counts.shard_windows,
        )  # fmt: skip
        found = (reader.shape, reader.dtype, reader.chunk_rows, reader.shard_rows)
        if found != expected:
            reader.close()
            raise DamagedError(
                f"{path}: shape, dtype, chunk and shard windows are {found}, the manifest says {expected}; "
                "restore the array or build again"
            )
        return reader

    def decode(self, chunk: int, slot: int) -> None:
        """Fill `slot` with a chunk, checked. DamagedError names what is absent or altered."""
        first = slot * self.chunk_windows
        for name, reader in self._readers.items():
            num_windows = min(self.chunk_windows, reader.shape[0] - chunk * self.chunk_windows)
            stored: NDArray[Any] = self.arrays[name][first : first + num_windows]
            reader.read_chunk(chunk, stored)

    def close(self) -> None:
        """Let go of the open files; `open` may follow."""
        for reader in self._readers.values():
            reader.close()
        self._readers = {}
        self._packing = -1
