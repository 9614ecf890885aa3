"""Checks that a finished export is complete, before it is reported as up to date.

It reads metadata and the indexes of shards, but not the chunks: their readers check each chunk's checksum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamfeat.errors import DamagedError
from streamfeat.export.export_task import hdf5_file
from streamfeat.export.features import CAUSAL
from streamfeat.export.hdf5 import read_attributes
from streamfeat.records import parse_object
from streamfeat.store.codecs import CRC_BYTES, index_bytes
from streamfeat.store.files import read_below
from streamfeat.store.layout import METADATA, ArraySpec
from streamfeat.store.reader import MAX_METADATA_BYTES, ArrayReader


def check_group(folder: Path, specs: Sequence[ArraySpec], remedy: str) -> None:
    """Raises DamagedError, with `remedy`, if a file of the Zarr arrays `specs` in `folder` is missing, truncated or
    belongs to another array."""
    for spec in specs:
        try:
            what = _flag_damage(folder, spec) if spec.name == CAUSAL else _array_damage(folder, spec)
        except FileNotFoundError as error:
            what = f"{folder / spec.name}: {error.filename} is missing"
        except DamagedError as error:
            what = str(error).rpartition("; ")[0]  # without its remedy, which is for datasets
        if what:
            raise DamagedError(f"{what}; {remedy}")


def check_files(folder: Path, num_shards: int, attributes: Mapping[str, Any], remedy: str) -> None:
    """Raises DamagedError, with `remedy`, if an HDF5 file in `folder` is missing, truncated or of another export."""
    for file in (folder / hdf5_file(shard) for shard in range(num_shards)):
        if not file.is_file():
            raise DamagedError(f"{file}: is missing; {remedy}")
        if read_attributes(file) != attributes:
            raise DamagedError(f"{file}: belongs to another export; {remedy}")


def _array_damage(folder: Path, spec: ArraySpec) -> str:
    with ArrayReader(folder, spec.name) as reader:
        if _without_words(reader.spec) != _without_words(spec):
            return f"{reader.path}: {METADATA} describes another array"
        for shard in range(spec.num_shards):
            reader.is_committed(shard)  # opens the shard, which checks its index and size
    return ""


def _without_words(spec: ArraySpec) -> ArraySpec:
    """`spec` without descriptions for people, which may differ between versions."""
    return replace(spec, attributes={name: value for name, value in spec.attributes.items() if name != "long_name"})


def _flag_damage(folder: Path, spec: ArraySpec) -> str:
    """The damage of the flag array, "" if none. `ArrayReader` cannot read bool; the size of this file is fixed, because
    it is not compressed."""
    metadata = f"{spec.name}/{METADATA}"
    parse_object(read_below(folder, metadata, MAX_METADATA_BYTES), str(folder / metadata), "")
    size = spec.chunk_bytes + CRC_BYTES + index_bytes(1)
    found = len(read_below(folder, spec.shard_file(0), size))
    return "" if found == size else f"{folder / spec.shard_file(0)}: has {found} bytes, not {size}"
