"""Looks at an event file first: finds out its kind, and samples lines from which its format is recognised."""

import csv
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamfeat.config import AUTO_ENCODING
from streamfeat.errors import ConfigError, DataError, StorageError
from streamfeat.events.encodings import encoding_of, is_utf8, refuse_zero_bytes, seems_to_be
from streamfeat.events.row_counts import spans_lines
from streamfeat.events.source import Compression
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text
from streamfeat.kernels.lines import MAX_LINE_LEN
from streamfeat.records import is_recordable

SAMPLE_BYTES = 1 << 18  # read from the head, from the middle and from the end
_START_BYTES = 4096  # tell the kind of a file
SAMPLE_LINES = 2000  # from each of the three

PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
_UNICODE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_SHEET = "a workbook; save the sheet with the events as CSV (in Excel: Save As, CSV UTF-8) and give that"
_OTHER_KINDS = {
    b"(\xb5/\xfd": "compressed with zstd; decompress it or compress it with gzip",
    b"BZh": "compressed with bzip2; decompress it or compress it with gzip",
    b"\xfd7zXZ": "compressed with xz; decompress it or compress it with gzip",
    b"\xd0\xcf\x11\xe0": _SHEET,  # Excel before 2007
    b"ARROW1": "an Arrow (Feather) file; write it as Parquet",
    b"ORC": "an ORC file; write it as Parquet",
    b"Obj\x01": "an Avro file; write it as Parquet",
    b"SQLite format 3": "an SQLite database; write the table of events as CSV or Parquet",
    b"\x89HDF": "an HDF5 file; write the table of events as CSV or Parquet",
    b"\x80\x04\x95": "a Python pickle, which is not opened; write the table of events as CSV or Parquet",
}
_SEPARATOR_LINE = re.compile(r'"?sep=(.|::)"?', re.IGNORECASE)  # of Excel, before the header


@dataclass(frozen=True)
class TextSample:
    """Lines of a text file without their line ends, decoded; invalid bytes are replaced."""

    compression: Compression
    encoding: str  # "" for UTF-8
    separator: str  # the delimiter that a first line `sep=;` names; "" if there is no such line, which is in no list
    head: list[str]  # from the first line on
    rest: list[str]  # from the middle and the end, if the file is larger than the head and can be read from there
    seems: str  # the encoding that it seems to have where it is not UTF-8; "" if the sample is UTF-8


def kind_of(path: str, encoding: str = AUTO_ENCODING) -> Literal["parquet", "gzip", "zip", "text"]:
    """The kind of the file `path`, from its bytes, not from its name. `encoding` is the one that the user gave.

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
            start = stream.read(_START_BYTES)
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
    if start.startswith(GZIP_MAGIC):
        return "gzip"
    if file.suffix.lower() in (".parquet", ".pq"):
        raise DataError(
            f"{path}: has the name of a Parquet file but is not one (starts with {start[:4]!r}); write it again"
        )
    if start.startswith(ZIP_MAGIC):
        if _is_workbook(path):
            raise ConfigError(f"{path}: {_SHEET}")
        return "zip"
    for magic, what in _OTHER_KINDS.items():
        if start.startswith(magic):
            raise ConfigError(f"{path}: {what}")
    if encoding == AUTO_ENCODING and not start.startswith(_UNICODE_MARKS):
        refuse_zero_bytes(path, start)
    return "text"


def zip_of_no_list(path: str) -> ConfigError:
    """The error for an archive that is not one of a site's lists."""
    return ConfigError(f"{path}: a zip archive; unpack it and give the event file inside")


def _is_workbook(path: str) -> bool:
    """Whether a zip archive is a workbook of Excel or OpenDocument."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return bool(names & {"xl/workbook.xml", "xl/workbook.bin"}) or {"mimetype", "content.xml"} <= names


def sample_text(path: str, compression: Compression, encoding: str = AUTO_ENCODING) -> TextSample:
    """Lines from the head of `path` and, if it is plain UTF-8, from its middle and end. `encoding` is the one that the
    user gave."""
    rest: list[bytes] = []
    try:
        with open_text(path, compression) as stream:
            found = encoding_of(stream.read(4), encoding)
        with open_text(path, compression, found) as stream:
            head = stream.read(SAMPLE_BYTES)
            if head.startswith(PARQUET_MAGIC):
                raise ConfigError(f"{path}: a Parquet file inside gzip; decompress it (Parquet compresses by itself)")
            if head.startswith(GZIP_MAGIC):
                raise ConfigError(f"{path}: a gzip file inside gzip; decompress it once")
            if compression == "none" and not found:
                size = stream.seek(0, 2)
                for start in (size // 2, size - SAMPLE_BYTES):
                    if start >= SAMPLE_BYTES:
                        stream.seek(start)
                        rest += _lines(stream.read(SAMPLE_BYTES), cut_start=True, cut_end=start == size // 2)
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from None
    if not found and compression == "gzip":  # of other files, `kind_of` has looked at the beginning
        refuse_zero_bytes(path, head[:_START_BYTES])
    if b"\n" not in head and b"\r" in head.rstrip(b"\r"):
        raise ConfigError(f"{path}: its lines end with CR only; convert them, for instance with tr '\\r' '\\n'")
    lines = _lines(head.removeprefix(BOM), cut_start=False, cut_end=len(head) == SAMPLE_BYTES)
    if not lines:
        if len(head) == SAMPLE_BYTES:
            raise ConfigError(f"{path}: its first line is longer than {SAMPLE_BYTES:,} bytes; give a table of events")
        raise DataError(f"{path}: the file has no lines; leave it out, or write it again")
    separator = _SEPARATOR_LINE.fullmatch(lines[0].decode("utf-8", "replace"))
    if separator and len(lines) > 1:
        lines = lines[1:]
    return TextSample(
        compression,
        found,
        separator[1] if separator else "",
        head=[line.decode("utf-8", "replace") for line in lines],
        rest=[line.decode("utf-8", "replace") for line in rest],
        seems="" if found else _seems(lines + rest),
    )


def _seems(lines: list[bytes]) -> str:
    """The encoding that the lines which are not UTF-8 seem to have; "" if all are UTF-8."""
    others = b"\n".join(line for line in lines if not is_utf8(line))
    return seems_to_be(others) if others else ""


def _lines(data: bytes, *, cut_start: bool, cut_end: bool) -> list[bytes]:
    """Complete lines of `data`. The first or last is dropped if it may be cut; so are blank lines at the end."""
    lines = data.split(b"\n")
    lines = lines[1 if cut_start else 0 : len(lines) - 1 if cut_end else len(lines)]
    while lines and not lines[-1].strip(b"\r"):
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines[:SAMPLE_LINES]]


def sampled_rows(sample: TextSample, delimiter: str, quote: str, num_fields: int) -> list[list[str]]:
    """The fields of the sampled rows, the header among them. A row may be several lines, as `row_counts` decides."""
    text = "\n".join(sample.head)
    if not quote or not spans_lines(text.encode(), delimiter, num_fields):
        return [split_line(line, delimiter, quote) for line in sample.head + sample.rest]
    csv.field_size_limit(MAX_LINE_LEN)
    rows = csv.reader([line + "\n" for line in sample.head], delimiter=delimiter, quotechar=quote)
    whole = (line for line in sample.rest if line.count(quote) % 2 == 0)  # others begin or end inside a record
    try:
        return [*rows, *(split_line(line, delimiter, quote) for line in whole)]
    except csv.Error:  # a lone carriage return
        return [split_line(line, delimiter, quote) for line in sample.head]


def split_line(line: str, delimiter: str, quote: str) -> list[str]:
    """The fields of one line."""
    if quote and quote in line and len(line) < MAX_LINE_LEN:
        csv.field_size_limit(MAX_LINE_LEN)
        try:
            return next(csv.reader([line], delimiter=delimiter, quotechar=quote), [""])
        except csv.Error:  # a lone carriage return: the reader rejects this line later
            return []
    return line.split(delimiter)
