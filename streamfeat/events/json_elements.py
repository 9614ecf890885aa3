"""The elements of a JSON array, or of JSON objects one after the other: counts them and finds where they begin."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamfeat.errors import ConfigError, DataError, StorageError
from streamfeat.events.row_counts import RowCount
from streamfeat.events.source import Source
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text
from streamfeat.kernels.json_elements import scan_elements
from streamfeat.kernels.lines import MAX_LINE_LEN, Lines

_BLOCK_BYTES = 1 << 22
_BLANK = b" \t\r\n"


def elements_of(data: bytes | bytearray, *, is_last: bool) -> tuple[NDArray[np.uint8], Lines, int]:
    """(the bytes as an array, the finished elements, where the unfinished one begins). The data begins inside none."""
    block = np.frombuffer(bytearray(data), np.uint8)  # kernels take writable arrays
    room = data.count(b",") + data.count(b"}") + data.count(b"]") + 2
    lines = Lines(np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint8))
    num = scan_elements(block, int(is_last), lines)
    return block, lines.part(0, num), int(lines.starts[num])


def without_opening(data: bytes) -> bytes:
    """The beginning of a file without byte order mark, white space, and the bracket that opens an array."""
    return data.removeprefix(BOM).lstrip(_BLANK).removeprefix(b"[")


def count_elements(source: Source, every: int) -> RowCount:
    """Counts the elements of `source` and finds the starts of the elements 0, `every`, 2 · `every`, ….

    Raises DataError if the file is cut short, ConfigError if an element is longer than a row may be.
    """
    starts: list[int] = []
    num_rows = content_end = 0
    carry, base = b"", 0  # what the last block began, and its place in the file
    is_array, last = False, b""
    for data in _blocks(source):
        if not base and not carry:
            text = without_opening(data)
            is_array = data[len(data) - len(text) - 1 : len(data) - len(text)] == b"["
            base = len(data) - len(text)
            data = text
        last = data.rstrip(_BLANK)[-1:] or last
        data = carry + data
        _, lines, unfinished = elements_of(data, is_last=False)
        num = len(lines.starts)
        first = -num_rows % every
        starts += (base + lines.starts[first::every]).tolist()
        content_end = base + int(lines.stops[-1]) if num else content_end
        num_rows += num
        carry, base = data[unfinished:], base + unfinished
        if len(carry) > MAX_LINE_LEN or (num and int((lines.stops - lines.starts).max()) > MAX_LINE_LEN):
            raise ConfigError(
                f"{source.path}: object {num_rows + 1:,}, or one not far before it, is longer than {MAX_LINE_LEN:,} "
                "bytes, so it is no event; give an array of events"
            )
    if carry.strip(_BLANK) or (is_array and last != b"]"):
        raise DataError(
            f"{source.path}: the JSON is cut short after {num_rows:,} whole objects; fetch or write the file again"
        )
    return RowCount(starts, num_rows, content_end, over_lines=False, note="")


def _blocks(source: Source) -> Iterator[bytes]:
    try:
        with open_text(source.path, source.compression, source.encoding) as stream:
            while data := stream.read(_BLOCK_BYTES):
                yield data
    except GZIP_ERRORS as error:
        raise damaged_gzip(source.path, error) from None
    except OSError as error:
        raise StorageError(f"{source.path}: cannot be read ({error.strerror}); check the disk and try again") from None
