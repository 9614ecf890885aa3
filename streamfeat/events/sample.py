"""Looks at an event file first: finds out its kind, and samples lines from which its format is recognised."""

import csv
import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from streamfeat.errors import ConfigError, DataError, StorageError
from streamfeat.events.source import Compression
from streamfeat.kernels.lines import MAX_LINE_LEN
from streamfeat.records import is_recordable

BOM = b"\xef\xbb\xbf"
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
SAMPLE_BYTES = 1 << 18  # read from the head, from the middle and from the end
SAMPLE_LINES = 2000  # from each of the three

PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"
# gzip compresses tables of events 3 to 20 times. A file that decompresses to more than this is made to fill memory.
MAX_GZIP_RATIO = 100
_GZIP_FREE_BYTES = 1 << 26  # up to this size every ratio is allowed
_OTHER_KINDS = {
    b"(\xb5/\xfd": "compressed with zstd; decompress it or compress it with gzip",
    b"BZh": "compressed with bzip2; decompress it or compress it with gzip",
    b"\xfd7zXZ": "compressed with xz; decompress it or compress it with gzip",
    b"PK\x03\x04": "a zip archive; unpack it and give the event file inside",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8, for instance with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8, for instance with iconv -f UTF-16 -t UTF-8",
}


@dataclass(frozen=True)
class TextSample:
    """Lines of a text file without their line ends, decoded; invalid bytes are replaced."""

    compression: Compression
    head: list[str]  # from the first line on
    rest: list[str]  # from the middle and the end, if the file is larger than the head and not compressed


def kind_of(path: str) -> Literal["parquet", "gzip", "text"]:
    """The kind of the file `path`, from its bytes, not from its name.

    Raises ConfigError for a folder, a missing file and unsupported kinds, DataError for an empty or truncated file,
    StorageError for a file that cannot be read.
    """
    if not path:
        raise ConfigError("the name of an event file is empty; check that the shell variable is set")
    file = Path(path)
    if not is_recordable(path):
        raise ConfigError(f"{path!r}: a name that is not UTF-8 cannot be recorded; rename the file")
    try:
        if file.is_dir():
            raise ConfigError(f"{path}: a folder; give the event files themselves, for instance '{path}/*.csv'")
        if not file.is_file() and file.exists():
            raise ConfigError(f"{path}: cannot be read twice; write its content to an ordinary file and give that")
        with file.open("rb") as stream:
            start = stream.read(4096)
            size = stream.seek(0, 2)
            stream.seek(max(0, size - len(PARQUET_MAGIC)))
            end = stream.read()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); grant access or give another file") from None
    if not start:
        raise DataError(f"{path}: the file is empty (0 bytes); leave it out, or write it again")
    if start.startswith(PARQUET_MAGIC):
        if end != PARQUET_MAGIC or size < 12:
            raise DataError(f"{path}: a Parquet file without its end; it was cut short or is still being written")
        return "parquet"
    if start.startswith(_GZIP_MAGIC):
        return "gzip"
    if file.suffix.lower() in (".parquet", ".pq"):
        raise DataError(
            f"{path}: has the name of a Parquet file but is not one (starts with {start[:4]!r}); write it again"
        )
    for magic, what in _OTHER_KINDS.items():
        if start.startswith(magic):
            raise ConfigError(f"{path}: {what}")
    if start.count(0) > len(start) // 5:
        raise ConfigError(
            f"{path}: neither text nor Parquet (zero bytes in its first lines); convert it to one of them"
        )
    return "text"


class _Unpacked(gzip.GzipFile):
    """A gzip file that raises DataError if it decompresses to more than MAX_GZIP_RATIO times its size."""

    def read(self, size: int | None = -1) -> bytes:
        """As for any file. Without a size it reads in parts, so that the ratio is checked early."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(SAMPLE_BYTES), b""))
        data = super().read(size)
        packed = os.fstat(self.fileno()).st_size
        if self.tell() > max(_GZIP_FREE_BYTES, MAX_GZIP_RATIO * packed):
            raise DataError(
                f"{self.name}: {packed:,} bytes of gzip decompress to more than {self.tell():,}, over {MAX_GZIP_RATIO} "
                "times as much, which is unusual for events; if the file is right, decompress it and give the result"
            )
        return data


def open_text(path: str, compression: Compression) -> BinaryIO:
    """Opens a text file and decompresses it. Reading raises DataError if it decompresses to far too much."""
    return cast(BinaryIO, _Unpacked(path, "rb")) if compression == "gzip" else Path(path).open("rb")


def damaged_gzip(path: str, error: Exception) -> DataError:
    """The error for a gzip file that cannot be decompressed."""
    return DataError(f"{path}: the gzip file is damaged or cut short ({error}); fetch or compress it again")


def sample_text(path: str, compression: Compression) -> TextSample:
    """Lines from the head of `path` and, if it is not compressed, from its middle and end."""
    rest: list[str] = []
    try:
        with open_text(path, compression) as stream:
            head = stream.read(SAMPLE_BYTES)
            if head.startswith(PARQUET_MAGIC):
                raise ConfigError(f"{path}: a Parquet file inside gzip; decompress it (Parquet compresses by itself)")
            if head.startswith(_GZIP_MAGIC):
                raise ConfigError(f"{path}: a gzip file inside gzip; decompress it once")
            if compression == "none":
                size = stream.seek(0, 2)
                for start in (size // 2, size - SAMPLE_BYTES):
                    if start >= SAMPLE_BYTES:
                        stream.seek(start)
                        rest += _lines(stream.read(SAMPLE_BYTES), cut_start=True, cut_end=start == size // 2)
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from None
    if b"\n" not in head and b"\r" in head.rstrip(b"\r"):
        raise ConfigError(f"{path}: its lines end with CR only; convert them, for instance with tr '\\r' '\\n'")
    lines = _lines(head.removeprefix(BOM), cut_start=False, cut_end=len(head) == SAMPLE_BYTES)
    if not lines:
        if len(head) == SAMPLE_BYTES:
            raise ConfigError(f"{path}: its first line is longer than {SAMPLE_BYTES:,} bytes; give a table of events")
        raise DataError(f"{path}: the file has no lines; leave it out, or write it again")
    return TextSample(compression, lines, rest)


def _lines(data: bytes, *, cut_start: bool, cut_end: bool) -> list[str]:
    """Complete lines of `data`. The first or last is dropped if it may be cut; so are blank lines at the end."""
    lines = data.split(b"\n")
    lines = lines[1 if cut_start else 0 : len(lines) - 1 if cut_end else len(lines)]
    while lines and not lines[-1].strip(b"\r"):
        lines.pop()
    return [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines[:SAMPLE_LINES]]


def split_line(line: str, delimiter: str, quote: str) -> list[str]:
    """The fields of one line."""
    if quote and quote in line and len(line) < MAX_LINE_LEN:
        csv.field_size_limit(MAX_LINE_LEN)
        try:
            return next(csv.reader([line], delimiter=delimiter, quotechar=quote), [""])
        except csv.Error:  # a lone carriage return: the reader rejects this line later
            return []
    return line.split(delimiter)
