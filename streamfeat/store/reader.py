"""The direct reader of an array: it decodes whole chunks into the caller's memory and checks every checksum.

An absent chunk or shard file is an error here; zarr-python would read fill values instead.
"""

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import Compression
from streamfeat.errors import DamagedError, StreamfeatError, refusal
from streamfeat.store.codecs import (
    ABSENT,
    CRC_BYTES,
    ChunkError,
    checked_payload,
    crc32c,
    decompress,
    index_bytes,
    max_encoded_bytes,
    parse_index,
)
from streamfeat.store.files import open_below, read_below
from streamfeat.store.layout import METADATA
from streamfeat.store.metadata import parse_array

MAX_OPEN_SHARDS = 64  # for one array; seven arrays stay far below the usual limit of 1,024 open files
MAX_METADATA_BYTES = 2**20


class ArrayReader:
    """Reads one sharded array. Threads may share it.

    Decoding releases the GIL. The MAX_OPEN_SHARDS most recently used shard files stay open, with their indexes.
    """

    def __init__(self, root: str | Path, array: str, committed: Mapping[int, str] | None = None) -> None:
        """Opens the array at the path `array` below the folder `root`. Links below `root` are not followed.

        committed: `Manifest.shard_checksums`. Only with them does the reader notice that a shard file was replaced by
        another sound one. Raises DamagedError if the array's `zarr.json` is missing, damaged or of another kind.
        """
        self._root = Path(root).absolute()  # shards are opened later, maybe after a chdir
        self.path = self._root / array
        group, slash, name = array.rpartition("/")
        self._group = group + slash
        self._committed = committed or {}
        self.spec = parse_array(_read_metadata(self._root, array), name, str(self.path / METADATA))
        self.shape = (self.spec.num_rows, *self.spec.row_shape)
        self.dtype = self.spec.dtype
        self.chunk_rows = self.spec.chunk_rows
        self.shard_rows = self.spec.shard_rows
        self.num_chunks = self.spec.num_chunks
        self.attributes = dict(self.spec.attributes)
        self._shards: OrderedDict[int, _Shard] = OrderedDict()
        self._lock = threading.Lock()

    def read_chunk(self, chunk: int, out: NDArray[Any]) -> None:
        """Decodes chunk number `chunk` into `out`: (rows of the chunk, *row shape) of the array's dtype, C-contiguous.

        Memory is allocated only in a thread's first reads. Raises DamagedError if the chunk is absent, truncated or
        altered (the content of `out` is then undefined), StorageError if reading fails.
        """
        rows = min(self.chunk_rows, self.spec.num_rows - chunk * self.chunk_rows)
        assert 0 <= chunk < self.num_chunks, (chunk, self.num_chunks)
        assert out.shape == (rows, *self.spec.row_shape), (out.shape, rows, self.spec.row_shape)
        assert out.dtype == self.dtype, (out.dtype, self.dtype)
        assert out.flags.c_contiguous, out.strides
        assert out.flags.writeable
        if rows == self.chunk_rows:
            self._decode(chunk, out)
        else:
            out[...] = self._decode_aside(chunk)[:rows]

    def read_rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` (exclusive) in new memory: (stop - start, *row shape). Raises as `read_chunk`."""
        if not 0 <= start <= stop <= self.spec.num_rows:
            raise IndexError(f"{self.path}: rows {start} to {stop} of an array with {self.spec.num_rows}")
        if start == stop:
            return np.empty((0, *self.spec.row_shape), self.dtype)
        # Check first that every shard exists: damaged metadata must not make it allocate memory.
        for shard in range(start // self.shard_rows, -(-stop // self.shard_rows)):
            self._shard_of(shard * self.spec.chunks_per_shard)
        out = np.empty((stop - start, *self.spec.row_shape), self.dtype)
        for chunk in range(start // self.chunk_rows, -(-stop // self.chunk_rows)):
            begin = chunk * self.chunk_rows
            low, high = max(begin, start), min(begin + self.chunk_rows, stop)
            if high - low == self.chunk_rows:
                self._decode(chunk, out[low - start : high - start])
            else:
                out[low - start : high - start] = self._decode_aside(chunk)[low - begin : high - begin]
        return out

    def is_committed(self, shard: int) -> bool:
        """Whether the sound shard number `shard` is the one in `committed`. True if `committed` does not have it."""
        return self._shard_of(shard * self.spec.chunks_per_shard).is_committed

    def damage(self, shard: int) -> list[tuple[int | None, str]]:
        """The damage of shard number `shard`: (chunk, description) pairs. Chunk None: the whole file."""
        found: list[tuple[int | None, str]] = []
        try:
            self._shard(shard)
        except FileNotFoundError:
            return [(None, "the shard file is missing")]
        except ChunkError as error:
            return [(None, str(error))]
        first = shard * self.spec.chunks_per_shard
        for chunk in range(first, min(first + self.spec.chunks_per_shard, self.num_chunks)):
            try:
                self._shard(shard).read(chunk - first, self.spec.compression, self._aside())
            except ChunkError as error:
                found.append((chunk, str(error)))
        return found

    def forget(self, shard: int) -> None:
        """Closes one shard's file. Deleting an open file does not free its space."""
        with self._lock:
            self._shards.pop(shard, None)

    def close(self) -> None:
        """Closes all shard files. A file that another thread is reading is closed when that read ends."""
        with self._lock:
            self._shards.clear()

    def __enter__(self) -> "ArrayReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _decode(self, chunk: int, out: NDArray[Any]) -> None:
        shard = self._shard_of(chunk)
        try:
            shard.read(chunk % self.spec.chunks_per_shard, self.spec.compression, out)
        except (ChunkError, OSError) as error:
            raise self._named(error, chunk) from None

    def _decode_aside(self, chunk: int) -> NDArray[Any]:
        """A whole chunk in this thread's memory. Valid until the thread's next read."""
        aside = self._aside()
        self._decode(chunk, aside)
        return aside

    def _aside(self) -> NDArray[Any]:
        memory = _thread_memory("decoded", self.spec.chunk_bytes)
        return memory.view(self.dtype).reshape(self.chunk_rows, *self.spec.row_shape)

    def _named(self, error: ChunkError | OSError, chunk: int) -> StreamfeatError:
        """The error to raise for `error`. Its message names the array, the chunk, the shard file and the remedy."""
        file = self.path.parent / self.spec.shard_file(chunk // self.spec.chunks_per_shard)
        if not isinstance(error, ChunkError | FileNotFoundError):
            return refusal(error, file)
        what = str(error) if isinstance(error, ChunkError) else "the shard file is missing"
        return DamagedError(
            f"array {self.path}, chunk {chunk}, shard file {file}: {what}; "
            "run `verify` to see all damage, `verify --repair` to write damaged windows again"
        )

    def _shard_of(self, chunk: int) -> "_Shard":
        try:
            return self._shard(chunk // self.spec.chunks_per_shard)
        except (ChunkError, OSError) as error:
            raise self._named(error, chunk) from None

    def _shard(self, shard: int) -> "_Shard":
        with self._lock:
            found = self._shards.get(shard)
            if found is not None:
                self._shards.move_to_end(shard)
                return found
        file = open_below(self._root, self._group + self.spec.shard_file(shard))
        opened = _Shard(file, self.spec.chunks_per_shard, self._committed.get(shard, ""))
        with self._lock:
            self._shards[shard] = opened
            while len(self._shards) > MAX_OPEN_SHARDS:
                self._shards.popitem(last=False)
        return opened


class _Shard:
    """An open shard file with its index. The file is closed when this object is no longer used."""

    def __init__(self, file: int, num_chunks: int, committed: str) -> None:
        """Takes over the handle `file`. Raises ChunkError if the file does not end with a sound index.

        committed: the crc32c of its chunks' checksums; "" if unknown.
        """
        self.file = file
        status = os.fstat(file)
        body_bytes = status.st_size - index_bytes(num_chunks)
        if not stat.S_ISREG(status.st_mode) or body_bytes < 0:
            raise ChunkError(f"the file has {status.st_size} bytes, too few for the index of a shard")
        tail = np.empty(index_bytes(num_chunks), np.uint8)
        _read_exactly(file, [tail], body_bytes)
        entries = parse_index(tail, num_chunks, body_bytes)
        self.entries: list[list[int]] = entries.tolist()
        self.misplaced = _misplaced(entries[:, 0])
        self.is_committed = not committed or self._checksum().hex() == committed

    def read(self, inner: int, compression: Compression, out: NDArray[Any]) -> None:
        """Decodes the shard's chunk `inner` into `out`, which has exactly a chunk's size. Raises ChunkError."""
        self._decode(inner, compression, out)
        if not self.is_committed:  # checked last: the error of a damaged chunk tells more
            raise ChunkError("the shard's chunks are not the committed ones: another file, or another chunk, is here")

    def _checksum(self) -> bytes:
        """The crc32c of the chunks' checksums, in the order of their numbers."""
        ends = [offset + nbytes for offset, nbytes in self.entries if offset != ABSENT and nbytes > CRC_BYTES]
        checksums = np.empty((len(ends), CRC_BYTES), np.uint8)
        for end, checksum in zip(ends, checksums, strict=True):
            _read_exactly(self.file, [checksum], end - CRC_BYTES)
        return crc32c(checksums)

    def _decode(self, inner: int, compression: Compression, out: NDArray[Any]) -> None:
        offset, nbytes = self.entries[inner]
        if offset == ABSENT and nbytes == ABSENT:
            raise ChunkError("the chunk is absent")
        if inner in self.misplaced:
            raise ChunkError("the index gives the chunk another chunk's place in the file")
        if not CRC_BYTES < nbytes <= max_encoded_bytes(out.nbytes, compression):
            raise ChunkError(
                f"the index gives the chunk {nbytes} bytes, which is impossible for {out.nbytes} decoded bytes"
            )
        if compression != "none":
            encoded = _thread_memory("encoded", nbytes)
            _read_exactly(self.file, [encoded], offset)
            decompress(checked_payload(encoded), compression, out)
            return
        if nbytes != out.nbytes + CRC_BYTES:
            raise ChunkError(f"the index gives the chunk {nbytes} bytes, not {out.nbytes + CRC_BYTES}")
        checksum = _thread_memory("encoded", CRC_BYTES)
        _read_exactly(self.file, [out.reshape(-1).view(np.uint8), checksum], offset)  # directly into `out`
        if crc32c(out) != checksum.tobytes():
            raise ChunkError("the chunk does not match its crc32c")

    def __del__(self) -> None:
        os.close(self.file)


def _misplaced(offsets: NDArray[np.uint64]) -> frozenset[int]:
    """The chunks of a shard that are not stored in the order of their numbers: entries of the index were exchanged.

    The chunks' own checksums are right in this case, so only this check finds it.
    """
    present = np.flatnonzero(offsets != np.uint64(ABSENT))
    offsets = offsets[present]
    is_misplaced = np.argsort(offsets, kind="stable") != np.arange(len(offsets))
    is_misplaced[1:] |= offsets[1:] == offsets[:-1]
    return frozenset(present[is_misplaced].tolist())


_MEMORY = threading.local()


def _thread_memory(purpose: str, num_bytes: int) -> NDArray[np.uint8]:
    """(num_bytes,) uint8 of this thread's own memory. The thread's next call with the same purpose reuses it.

    Allocating memory takes longer than decoding: reading into reused memory is about four times as fast.
    """
    memory: NDArray[np.uint8] | None = getattr(_MEMORY, purpose, None)
    if memory is None or memory.size < num_bytes:
        memory = np.empty(1 << (num_bytes - 1).bit_length(), np.uint8)  # compressed sizes vary: grow rarely
        setattr(_MEMORY, purpose, memory)
    return memory[:num_bytes]


def _read_exactly(file: int, buffers: list[NDArray[np.uint8]], offset: int) -> None:
    """Fills `buffers` one after the other from `offset` on. Raises ChunkError if the file ends before."""
    views = [buffer.data for buffer in buffers]
    while views:
        num_read = os.preadv(file, views, offset)
        if num_read == 0:
            raise ChunkError("the file ends inside the chunk")
        offset += num_read
        while views and num_read >= len(views[0]):
            num_read -= len(views.pop(0))
        if num_read:
            views[0] = views[0][num_read:]


def _read_metadata(root: Path, array: str) -> bytes:
    try:
        return read_below(root, f"{array}/{METADATA}", MAX_METADATA_BYTES)
    except FileNotFoundError:
        raise DamagedError(
            f"{root / array}: no array here ({METADATA} is missing); restore it or build again"
        ) from None
