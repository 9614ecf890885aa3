"""Decoded chunks of one packing, in reused memory."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import SplitName
from streamfeat.errors import DamagedError
from streamfeat.schema import TokenField
from streamfeat.store.manifest import Manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.stream.chunk_source import ChunkSource


class ChunkPool:
    """`num_slots` slots; each holds one decoded chunk of every token field. Threads may fill different slots at once.

    `arrays` maps a field to an array (num_slots * chunk_windows, window_len) of its stored dtype.
    """

    def __init__(self, source: ChunkSource, manifest: Manifest, split: SplitName, num_slots: int) -> None:
        self._source = source
        self._manifest = manifest
        self._split: SplitName = split
        self._packing = -1  # -1: no packing is open
        self._readers: dict[str, ArrayReader] = {}
        self._opening = threading.Lock()
        self.chunk_windows = manifest.splits[split].chunk_windows
        shape = (num_slots * self.chunk_windows, manifest.data_schema.window_len)
        self.arrays = {field.name: np.empty(shape, field.dtype) for field in manifest.data_schema.token_fields()}

    def open(self, packing: int) -> None:
        """Makes this the packing that `decode` reads."""
        if packing != self._packing:
            self.close()
            self._packing = packing

    def has(self, chunk: int) -> bool:
        """Whether `decode` can read the chunk without waiting."""
        return self._source.has(self._packing, chunk)

    def wait_for(self, chunk: int, stopped: threading.Event) -> None:
        """Waits until `decode` can read the chunk. Raises CancelledError when `stopped` is set."""
        self._source.wait_for(self._packing, chunk, stopped)

    def decode(self, chunk: int, slot: int) -> None:
        """Reads and checks a chunk and decodes it into `slot`.

        Raises DamagedError if a file is missing, altered, or differs from the manifest.
        """
        first = slot * self.chunk_windows
        try:
            for name, reader in self._opened().items():
                num_windows = min(self.chunk_windows, reader.shape[0] - chunk * self.chunk_windows)
                stored: NDArray[Any] = self.arrays[name][first : first + num_windows]
                reader.read_chunk(chunk, stored)
        except DamagedError as error:
            if not self._source.live:
                raise
            raise DamagedError(
                f"{error}\n(this file was committed and is still needed, so another program removed or altered it in "
                "this live run's folder; train again with --live and --resume, which writes it again)"
            ) from None

    def forget(self, packing: int, shard: int) -> None:
        """Closes the files of a shard that is no longer read."""
        if packing == self._packing:
            for reader in self._readers.values():
                reader.forget(shard)

    def close(self) -> None:
        """Closes all files. `open` may be called again."""
        for reader in self._readers.values():
            reader.close()
        self._readers = {}
        self._packing = -1

    def _opened(self) -> dict[str, ArrayReader]:
        """The readers of the packing. They are opened at first use, because a live packing has no arrays before its
        first shard."""
        with self._opening:
            if not self._readers:
                fields = self._manifest.data_schema.token_fields()
                self._readers = {field.name: self._checked(field) for field in fields}
            return self._readers

    def _checked(self, field: TokenField) -> ArrayReader:
        reader = self._source.reader(self._packing, field.name)
        counts = self._manifest.splits[self._split]
        shape = counts.windows, self._manifest.data_schema.window_len
        expected = shape, field.dtype, counts.chunk_windows, counts.shard_windows
        found = (reader.shape, reader.dtype, reader.chunk_rows, reader.shard_rows)
        if found != expected:
            raise DamagedError(
                f"{reader.path}: shape, dtype, chunk and shard windows are {found}, but the manifest says {expected}; "
                "restore the array or build again"
            )
        return reader
