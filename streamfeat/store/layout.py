"""The names in a dataset folder, and the shards and chunks of its Zarr arrays.

zarr-python makes the metadata of arrays and groups; `store.writer` writes shard files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from streamfeat.config import Compression
from streamfeat.errors import ConfigError, StreamfeatError
from streamfeat.records import parse_object
from streamfeat.store.files import read_below, write_durably

MARKER = ".streamfeat"  # the first file of a build; says that the folder belongs to a build
MANIFEST = "dataset.json"
ITEMS = "items.parquet"
USERS = "users.parquet"
HISTORIES: Final = "histories.zarr"
WINDOWS: Final = "windows.zarr"
RECEIPTS = "receipts"
TEMPORARY = "tmp"
LIVE = "live"  # the folders of live runs; not a part of the dataset
REJECTED = "rejected.csv"
METADATA = "zarr.json"

MAX_CHUNK_BYTES = 2**30  # decoded size; the limit of blosc is 2 GiB
BLOSC_LEVEL = 5
ZSTD_LEVEL = 1


@dataclass(frozen=True)
class ArraySpec:
    """One Zarr array, cut along its first axis only: (num_rows, *row_shape)."""

    name: str
    num_rows: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    shard_rows: int  # a multiple of chunk_rows
    fill_value: float | int
    dimension_names: tuple[str, ...]
    compression: Compression
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_shards(self) -> int:
        return -(-self.num_rows // self.shard_rows)

    @property
    def chunks_per_shard(self) -> int:
        return self.shard_rows // self.chunk_rows

    @property
    def num_chunks(self) -> int:
        return -(-self.num_rows // self.chunk_rows)

    @property
    def chunk_bytes(self) -> int:
        """Decoded size of a chunk."""
        return self.chunk_rows * math.prod(self.row_shape) * self.dtype.itemsize

    def shard_file(self, shard: int) -> str:
        """Path of a shard's file below its group."""
        return "/".join([self.name, "c", str(shard), *("0" for _ in self.row_shape)])


def create_group(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Makes `path` a Zarr v3 group. Its parent must exist. A second call changes nothing."""
    create_arrays(path, [], attributes)


def create_arrays(group: Path, specs: Sequence[ArraySpec], attributes: Mapping[str, Any] | None = None) -> None:
    """Makes `group` a Zarr v3 group and writes the metadata of `specs` in it, without chunks. Its parent must exist.

    zarr-python makes the documents in memory; each is then written whole and durably. A second call, also after a kill
    in between, writes only documents that are missing or different. Raises ConfigError for chunks that are too large.
    """
    import zarr
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    documents: dict[str, Buffer] = {}
    root = zarr.create_group(MemoryStore(documents), zarr_format=3, attributes=dict(attributes or {}))
    for spec in specs:
        if spec.chunk_bytes > MAX_CHUNK_BYTES:
            raise ConfigError(
                f"{group}/{spec.name}: a chunk would have {spec.chunk_bytes} bytes, more than the limit of "
                f"{MAX_CHUNK_BYTES}; lower --chunk-windows or --window-len"
            )
        root.create_array(
            spec.name,
            shape=(spec.num_rows, *spec.row_shape),
            dtype=spec.dtype,
            chunks=(spec.chunk_rows, *spec.row_shape),
            shards=(spec.shard_rows, *spec.row_shape),
            compressors=_codecs(spec),
            fill_value=spec.fill_value,
            dimension_names=spec.dimension_names,
            attributes=dict(spec.attributes),
        )
    for name, document in documents.items():
        if not _says(group, name, document.to_bytes()):
            write_durably(group.parent, f"{group.name}/{name}", [document.to_bytes()])


def _codecs(spec: ArraySpec) -> list[Any]:
    """The codecs of a chunk after `bytes`."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    if spec.compression == "lz4":
        blosc = BloscCodec(cname="lz4", clevel=BLOSC_LEVEL, shuffle="shuffle", typesize=spec.dtype.itemsize)
        return [blosc, Crc32cCodec()]
    if spec.compression == "zstd":
        return [ZstdCodec(level=ZSTD_LEVEL, checksum=True), Crc32cCodec()]
    return [Crc32cCodec()]


def _says(group: Path, name: str, document: bytes) -> bool:
    """Whether the file `name` below `group` holds a JSON document with the content of `document`."""
    try:
        found = read_below(group.parent, f"{group.name}/{name}", 2 * len(document))
        return parse_object(found, name, "") == parse_object(document, name, "")
    except (OSError, StreamfeatError):  # if writing is not possible, it raises an error
        return False
