"""Encodes, checks and decodes the bytes of chunks and shard indexes. Touches no files.

A chunk is `bytes`, compressed by blosc or zstd if chosen, then its crc32c (4 bytes, little-endian). A shard file has
its chunks one after the other, then the index: an (offset, nbytes) pair of uint64 for each chunk, both 2^64 - 1 for an
absent chunk, then the index's crc32c. (Zarr v3 codecs `sharding_indexed`, `bytes`, `blosc`, `zstd`, `crc32c`.)
"""

from typing import Any

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from streamfeat.config import Compression
from streamfeat.store.layout import BLOSC_LEVEL, ZSTD_LEVEL

# One thread per call, by the contextual API. It releases the GIL, and the result does not depend on threads.
numcodecs.blosc.use_threads = False

ABSENT = 2**64 - 1
CRC_BYTES = 4
BLOSC_HEADER_BYTES = 16
ZSTD_MAGIC = bytes.fromhex("28b52ffd")


class ChunkError(Exception):
    """Bytes that are not a sound chunk or index; the message says why. The caller adds the file's name."""


def crc32c(data: NDArray[Any]) -> bytes:
    """The CRC-32C of an array's bytes (C-contiguous): 4 bytes, little-endian."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def encode_chunk(values: NDArray[Any], compression: Compression) -> NDArray[np.uint8]:
    """The chunk's bytes before its crc32c, 1-d. `values` is C-contiguous and little-endian."""
    if compression == "lz4":
        shuffle = numcodecs.blosc.SHUFFLE
        return np.frombuffer(numcodecs.blosc.compress(values, b"lz4", BLOSC_LEVEL, shuffle), np.uint8)
    if compression == "zstd":
        return np.frombuffer(numcodecs.zstd.compress(values, ZSTD_LEVEL, True), np.uint8)
    return values.reshape(-1).view(np.uint8)


def index_bytes(num_chunks: int) -> int:
    """Size in bytes of a shard's index with its crc32c."""
    return 16 * num_chunks + CRC_BYTES


def parse_index(data: NDArray[np.uint8], num_chunks: int, body_bytes: int) -> NDArray[np.uint64]:
    """(num_chunks, 2) uint64 (offset, nbytes), both ABSENT for an absent chunk; a copy.

    `data` is the index with its crc32c, `body_bytes` the number of bytes before it. Raises ChunkError if the crc32c
    differs or an entry points outside the body.
    """
    if crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
        raise ChunkError("the index of the shard does not match its crc32c")
    entries = data[:-CRC_BYTES].copy().view("<u8").reshape(num_chunks, 2)
    present = ~(entries == np.uint64(ABSENT)).all(axis=1)
    offsets, sizes = entries[present, 0], entries[present, 1]
    # Both are checked before they are added: a sum of uint64 can wrap around.
    limit = np.uint64(body_bytes)
    if (offsets > limit).any() or (sizes > limit).any() or (offsets + sizes > limit).any():
        raise ChunkError("the index of the shard points outside of the file")
    return entries


def max_encoded_bytes(num_bytes: int, compression: Compression) -> int:
    """The largest encoded size of a sound chunk of `num_bytes`, its crc32c included."""
    if compression == "none":
        return num_bytes + CRC_BYTES
    # blosc adds at most its header; zstd's ZSTD_compressBound adds at most 1/256 and 1 KiB.
    return num_bytes + (num_bytes >> 8) + 1024 + CRC_BYTES


def checked_payload(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`encoded` (longer than CRC_BYTES) without its crc32c. Raises ChunkError if the crc32c differs."""
    payload = encoded[:-CRC_BYTES]
    if crc32c(payload) != encoded[-CRC_BYTES:].tobytes():
        raise ChunkError("the chunk does not match its crc32c")
    return payload


def decompress(payload: NDArray[np.uint8], compression: Compression, out: NDArray[Any]) -> None:
    """Decodes a compressed payload into `out` (C-contiguous, exactly the chunk's size).

    First compares the size in the header with `out`, so that a damaged payload cannot make the decoder allocate memory
    or write outside. Raises ChunkError if the sizes differ or decoding fails.
    """
    announced = _blosc_content(payload) if compression == "lz4" else _zstd_content(payload)
    if announced != out.nbytes:
        raise ChunkError(f"the chunk's header announces {announced} bytes, but chunks of this array have {out.nbytes}")
    decoder = numcodecs.blosc.decompress if compression == "lz4" else numcodecs.zstd.decompress
    try:
        decoder(payload, out)
    except (ValueError, RuntimeError) as error:
        raise ChunkError(f"the chunk cannot be decompressed ({error})") from None


def _blosc_content(payload: NDArray[np.uint8]) -> int:
    """The decoded size in bytes, from a blosc header."""
    if payload.size < BLOSC_HEADER_BYTES:
        raise ChunkError(f"{payload.size} bytes are too few for a blosc header")
    sizes = payload[4:BLOSC_HEADER_BYTES].copy().view("<u4")  # decoded, block, encoded
    if sizes[2] != payload.size:
        raise ChunkError(f"the blosc header announces {sizes[2]} encoded bytes, but the chunk has {payload.size}")
    return int(sizes[0])


def _zstd_content(payload: NDArray[np.uint8]) -> int:
    """The decoded size in bytes, from a zstd frame header (RFC 8878, 3.1.1.1)."""
    head = payload[:18].tobytes()
    if len(head) < 6 or head[:4] != ZSTD_MAGIC:
        raise ChunkError("the chunk is not a zstd frame")
    descriptor = head[4]
    size_code, single_segment, dictionary_code = descriptor >> 6, descriptor >> 5 & 1, descriptor & 3
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[dictionary_code]
    num_bytes = (1 if single_segment else 0, 2, 4, 8)[size_code]
    if num_bytes == 0:
        raise ChunkError("the zstd frame does not contain its decoded size")
    content = int.from_bytes(head[start : start + num_bytes], "little")
    return content + 256 if num_bytes == 2 else content
