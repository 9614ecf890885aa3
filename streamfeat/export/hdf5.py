"""One shard of features as an HDF5 file. Only this module uses h5py, which is an extra."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamfeat.errors import DamagedError
from streamfeat.store.layout import ArraySpec

# Errors that h5py raises for damaged files. An AttributeError comes from a value of another kind than we write.
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError)
GZIP_LEVEL = 1  # gzip instead of lzf, because every HDF5 library can read it


def shard_image(specs: Sequence[ArraySpec], arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> bytes:
    """The bytes of a file with one dataset for each spec, compressed by gzip, with a checksum for each chunk.

    `attributes` become those of the root. The file is made in memory, so that it can be written whole. The same arrays
    give the same bytes.
    """
    import h5py

    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        for spec in specs:
            values = arrays[spec.name]
            dataset = file.create_dataset(
                spec.name,
                data=values,
                chunks=(min(spec.chunk_rows, len(values)), *spec.row_shape),
                compression="gzip",
                compression_opts=GZIP_LEVEL,
                shuffle=True,
                fletcher32=True,
                track_times=False,
            )
            for axis, name in zip(dataset.dims, spec.dimension_names, strict=True):
                axis.label = name
            dataset.attrs.update(spec.attributes)
        file.attrs.update(attributes)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def read_attributes(path: Path) -> dict[str, Any]:
    """The root's attributes as plain values. Raises DamagedError if the file cannot be read."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {name: value if isinstance(value, str) else value.tolist() for name, value in file.attrs.items()}
    except _UNREADABLE as error:
        raise DamagedError(f"{path}: cannot be read as HDF5 ({error}); remove the folder and export again") from None
