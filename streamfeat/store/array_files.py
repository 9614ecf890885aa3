"""Temporary files of a build: several named NumPy arrays in one file, committed like any other.

The file begins with a JSON line (names, dtypes, lengths, offsets; in the last file of a task also the facts of its
receipt). The arrays' bytes follow, each on a 64-byte boundary. Reading maps the file into memory, so a task reads only
the parts of arrays that it needs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import JsonValue

from streamfeat.records import Frozen, read_back
from streamfeat.store.files import write_durably
from streamfeat.store.receipts import Count, FileRecord

_ALIGNMENT = 64
_MAX_HEADER_BYTES = 2**26  # as many as a receipt's
_REMEDY = "build again with --overwrite"


class _Entry(Frozen):
    dtype: str
    length: Count
    offset: Count  # bytes after the header


class _Header(Frozen):
    arrays: dict[str, _Entry]
    facts: dict[str, JsonValue] | None


def write_arrays(root: Path, path: str, arrays: Mapping[str, NDArray[Any]], facts: Frozen | None = None) -> FileRecord:
    """Writes `arrays` (1-d) and `facts` as the file `path` below `root`, whole and durably."""
    entries: dict[str, _Entry] = {}
    offset = 0
    for name, array in arrays.items():
        entries[name] = _Entry(dtype=array.dtype.str, length=len(array), offset=offset)
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = _Header(arrays=entries, facts=None if facts is None else facts.model_dump(mode="json"))
    line = header.model_dump_json().encode() + b"\n"
    parts: list[bytes | memoryview] = [line, _padding(len(line))]
    for array in arrays.values():
        parts += [np.ascontiguousarray(array).view(np.uint8).data, _padding(array.nbytes)]
    size, sha256 = write_durably(root, path, parts)
    return FileRecord(path=path, size=size, sha256=sha256)


def _padding(num_bytes: int) -> bytes:
    return bytes(-num_bytes % _ALIGNMENT)


def map_arrays(root: Path, path: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file, mapped into memory, read-only."""
    data = np.memmap(root / path, np.uint8, "r")
    header, num_bytes = _read_header(root, path)
    start = -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
    arrays = {}
    for name, entry in header.arrays.items():
        dtype = np.dtype(entry.dtype)
        at = start + entry.offset
        arrays[name] = np.asarray(data[at : at + entry.length * dtype.itemsize]).view(dtype)
    return arrays


def read_facts(root: Path, path: str) -> dict[str, JsonValue] | None:
    """The facts in a file of arrays, as JSON values; None if there are none."""
    return _read_header(root, path)[0].facts


def _read_header(root: Path, path: str) -> tuple[_Header, int]:
    """The header and its number of bytes."""
    with (root / path).open("rb") as file:
        line = file.readline(_MAX_HEADER_BYTES)
    return read_back(_Header, line, root / path, _REMEDY), len(line)


def text_arrays(name: str, texts: pa.StringArray) -> dict[str, NDArray[Any]]:
    """A string array as two arrays, `<name>_offsets` (int64) and `<name>_bytes` (uint8)."""
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return {f"{name}_offsets": edges - edges[0], f"{name}_bytes": content[edges[0] : edges[-1]]}


def texts_of(arrays: Mapping[str, NDArray[Any]], name: str, first: int = 0, last: int | None = None) -> pa.StringArray:
    """The texts `first` to `last` - 1 of the arrays that `text_arrays` made."""
    edges = arrays[f"{name}_offsets"]
    last = len(edges) - 1 if last is None else last
    offsets = np.array(edges[first : last + 1])
    content = np.array(arrays[f"{name}_bytes"][offsets[0] : offsets[-1]])
    texts = pa.LargeStringArray.from_buffers(last - first, pa.py_buffer(offsets - offsets[0]), pa.py_buffer(content))
    return texts.cast(pa.string())
