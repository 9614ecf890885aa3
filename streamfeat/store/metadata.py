"""Reads the `zarr.json` of an array. Rejects everything that this project does not write."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from streamfeat.config import Compression
from streamfeat.errors import DamagedError
from streamfeat.records import Frozen, read_back
from streamfeat.store.layout import MAX_CHUNK_BYTES, ArraySpec

MAX_CHUNKS_PER_SHARD = 2**20  # a shard's index then has 16 MiB, which is read at once
MAX_ROWS = 2**48  # keeps every product below 2^63

Length = Annotated[int, Field(ge=1, le=MAX_ROWS, strict=True)]


class _ChunkShape(Frozen):
    chunk_shape: tuple[Length, ...]


class _Grid(Frozen):
    name: Literal["regular"]
    configuration: _ChunkShape


class _Separator(Frozen):
    separator: Literal["/"]


class _Keys(Frozen):
    name: Literal["default"]
    configuration: _Separator


class _Endian(Frozen):
    endian: Literal["little"] = "little"


class _Bytes(Frozen):
    name: Literal["bytes"]
    configuration: _Endian = _Endian()


class _BloscSettings(Frozen):
    cname: Literal["lz4"]
    clevel: int
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"]
    typesize: int
    blocksize: int


class _Blosc(Frozen):
    name: Literal["blosc"]
    configuration: _BloscSettings


class _ZstdSettings(Frozen):
    level: int
    checksum: bool


class _Zstd(Frozen):
    name: Literal["zstd"]
    configuration: _ZstdSettings


class _Crc32c(Frozen):
    name: Literal["crc32c"]


_Codec = Annotated[_Bytes | _Blosc | _Zstd | _Crc32c, Field(discriminator="name")]


class _ShardSettings(Frozen):
    chunk_shape: tuple[Length, ...]
    codecs: tuple[_Codec, ...]
    index_codecs: tuple[_Bytes, _Crc32c]
    index_location: Literal["end"]

    @property
    def compression(self) -> Compression:
        return _COMPRESSIONS[tuple(codec.name for codec in self.codecs)]

    @model_validator(mode="after")
    def _known(self) -> "_ShardSettings":
        names = tuple(codec.name for codec in self.codecs)
        if names not in _COMPRESSIONS:
            raise ValueError(f"codecs must be bytes, then blosc, zstd or nothing, then crc32c, not {', '.join(names)}")
        return self


_COMPRESSIONS: dict[tuple[str, ...], Compression] = {
    ("bytes", "blosc", "crc32c"): "lz4",
    ("bytes", "zstd", "crc32c"): "zstd",
    ("bytes", "crc32c"): "none",
}


class _Sharding(Frozen):
    name: Literal["sharding_indexed"]
    configuration: _ShardSettings


class _Array(Frozen):
    """The document. Only the first axis is cut into shards and chunks."""

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: tuple[Annotated[int, Field(ge=0, le=MAX_ROWS, strict=True)], ...] = Field(min_length=1, max_length=4)
    data_type: Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]
    chunk_grid: _Grid
    chunk_key_encoding: _Keys
    fill_value: int | float | Literal["NaN"]
    codecs: tuple[_Sharding]
    attributes: dict[str, Any] = Field(default_factory=dict)
    dimension_names: tuple[str, ...]
    storage_transformers: tuple[()] = ()

    @model_validator(mode="after")
    def _agree(self) -> "_Array":
        shard, chunk = self.chunk_grid.configuration.chunk_shape, self.codecs[0].configuration.chunk_shape
        if shard[1:] != self.shape[1:] or chunk[1:] != self.shape[1:]:
            raise ValueError(f"shape {self.shape}, shards {shard} and chunks {chunk} may differ in the first axis only")
        if len(self.dimension_names) != len(self.shape):
            raise ValueError(f"{len(self.dimension_names)} dimension_names for {len(self.shape)} axes")
        if shard[0] % chunk[0] or shard[0] // chunk[0] > MAX_CHUNKS_PER_SHARD:
            raise ValueError(f"shards of {shard[0]} rows cannot be cut into chunks of {chunk[0]}")
        return self


def parse_array(document: bytes, name: str, where: str) -> ArraySpec:
    """The array `name` that a `zarr.json` describes. Raises DamagedError, which names `where`, for other arrays than
    this project writes."""
    remedy = "restore it or build again"
    spec = _spec(read_back(_Array, document, where, remedy), name)
    if spec.chunk_bytes > MAX_CHUNK_BYTES:
        raise DamagedError(
            f"{where}: chunks of {spec.chunk_bytes} bytes are over the limit of {MAX_CHUNK_BYTES}; {remedy}"
        )
    return spec


def _spec(array: _Array, name: str) -> ArraySpec:
    sharding = array.codecs[0].configuration
    return ArraySpec(
        name=name,
        num_rows=array.shape[0],
        row_shape=array.shape[1:],
        dtype=np.dtype(array.data_type),
        chunk_rows=sharding.chunk_shape[0],
        shard_rows=array.chunk_grid.configuration.chunk_shape[0],
        fill_value=float("nan") if array.fill_value == "NaN" else array.fill_value,
        dimension_names=array.dimension_names,
        compression=sharding.compression,
        attributes=array.attributes,
    )
