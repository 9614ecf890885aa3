"""Temporary files of a build: several named NumPy arrays in one file, committed like any other.

A JSON line (names, dtypes, lengths, offsets; the facts of the task's receipt, where it is the last file of one), then
the arrays' bytes, each on a 64-byte boundary. Reads map the file, so a task that needs a part of an array touches only
that part.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamfeat.store.files import write_durably
from streamfeat.store.manifest import FileRecord

_ALIGNMENT = 64


def write_arrays(
    root: Path, path: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any] | None = None
) -> FileRecord:
    """Commit `arrays` (1-d) as the file `path` below `root`, with `facts` beside them."""
    entries: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, array in arrays.items():
        entries[name] = {"dtype": array.dtype.str, "length": len(array), "offset": offset}
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    line = json.dumps({"arrays": entries, "facts": facts}).encode() + b"\n"
    parts: list[bytes | memoryview] = [line, _padding(len(line))]
    for array in arrays.values():
        parts += [np.ascontiguousarray(array).view(np.uint8).data, _padding(array.nbytes)]
    size, sha256 = write_durably(root, path, parts)
    return FileRecord(path=path, size=size, sha256=sha256)


def _padding(num_bytes: int) -> bytes:
    return bytes(-num_bytes % _ALIGNMENT)


def map_arrays(root: Path, path: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file, mapped read-only."""
    data = np.memmap(root / path, np.uint8, "r")
    line = _first_line(root, path)
    start = -(-len(line) // _ALIGNMENT) * _ALIGNMENT
    arrays = {}
    for name, entry in json.loads(line)["arrays"].items():
        dtype = np.dtype(entry["dtype"])
        at = start + entry["offset"]
        arrays[name] = np.asarray(data[at : at + entry["length"] * dtype.itemsize]).view(dtype)
    return arrays


def read_facts(root: Path, path: str) -> dict[str, Any] | None:
    """The facts that lie beside the arrays of a file; None where there are none."""
    facts: dict[str, Any] | None = json.loads(_first_line(root, path)).get("facts")
    return facts


def _first_line(root: Path, path: str) -> bytes:
    with (root / path).open("rb") as file:
        return file.readline()


def text_arrays(name: str, texts: pa.StringArray) -> dict[str, NDArray[Any]]:
    """A string array as two arrays, `<name>_offsets` (int64) and `<name>_bytes` (uint8)."""
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return {f"{name}_offsets": edges - edges[0], f"{name}_bytes": content[edges[0] : edges[-1]]}


def texts_of(arrays: Mapping[str, NDArray[Any]], name: str, first: int = 0, last: int | None = None) -> pa.StringArray:
    """Texts `first` to `last` of what `text_arrays` made."""
    edges = arrays[f"{name}_offsets"]
    last = len(edges) - 1 if last is None else last
    offsets = np.array(edges[first : last + 1])
    content = np.array(arrays[f"{name}_bytes"][offsets[0] : offsets[-1]])
    texts = pa.LargeStringArray.from_buffers(last - first, pa.py_buffer(offsets - offsets[0]), pa.py_buffer(content))
    return texts.cast(pa.string())
