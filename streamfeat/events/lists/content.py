"""A file that may be a list: its kind, its first bytes, and what it holds, read once and within bounds."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from streamfeat.errors import DataError, StorageError
from streamfeat.events.encodings import encoding_of, not_utf8, seems_to_be
from streamfeat.events.lists.xml_records import Record, read_records
from streamfeat.events.lists.zip_members import read_members
from streamfeat.events.sample import ZIP_MAGIC
from streamfeat.events.source import Compression
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text

MAX_BYTES = 1 << 27  # of a list, decompressed: the largest exports have some 20 MB
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Row:
    """A record of CSV: its place in the file from 1, the header not counted, and its fields by column."""

    number: int
    fields: Mapping[str, str]

    def get(self, *names: str) -> str:
        """The text of the first of these columns that is there and not empty, without spaces around it."""
        return next((text for name in names if (text := self.fields.get(name, "").strip())), "")


@dataclass(frozen=True)
class Content:
    """A file that may be a list. `path` names it in errors."""

    path: str
    compression: Compression = "none"
    encoding: str = ""  # of text, a name of Python's codecs; empty: UTF-8
    member: bytes | None = field(default=None, repr=False)  # of an archive: its bytes

    @classmethod
    def of(cls, path: str, compression: Compression, asked_encoding: str) -> "Content":
        """The content of the file at `path`. Raises DataError if its gzip is damaged, StorageError for the disk."""
        start = _read(path, compression, "", 4)
        return cls(path, compression, "" if start == ZIP_MAGIC else encoding_of(start, asked_encoding))

    @cached_property
    def head(self) -> bytes:
        """Its first bytes, decompressed, in UTF-8, without a byte order mark and spaces before the first character."""
        start = _read(self.path, self.compression, self.encoding, _HEAD_BYTES) if self.member is None else self.member
        return start[:_HEAD_BYTES].removeprefix(BOM).lstrip()

    @cached_property
    def kind(self) -> Literal["zip", "xml", "json", "text"]:
        """What the first characters say."""
        if self.head.startswith(ZIP_MAGIC):
            return "zip"
        first = self.head[:1]
        return "xml" if first == b"<" else "json" if first in (b"{", b"[") else "text"

    @cached_property
    def data(self) -> bytes:
        """The whole file, decompressed, in UTF-8. Raises DataError if it is too long for a list."""
        data = self.member
        if data is None:
            data = _read(self.path, self.compression, self.encoding, MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(
                f"{self.path}: is longer than {MAX_BYTES:,} bytes, which no list is; give a table of events"
            )
        return data.removeprefix(BOM)

    @cached_property
    def xml(self) -> list[Record]:
        """Its records. Raises DataError."""
        return read_records(self.path, self.data, "utf-8" if self.encoding else None)

    @cached_property
    def members(self) -> dict[str, "Content"]:
        """The files of an archive by their path in it. Raises DataError if it is damaged or made to fill memory."""
        found = read_members(self.path, MAX_BYTES)
        return {name: Content(f"{self.path}/{name}", member=data) for name, data in found.items()}

    @cached_property
    def json(self) -> Any:
        """The value that the file holds. Raises DataError if it is not JSON or too long."""
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: the JSON cannot be read ({error}); export the list again") from None

    @cached_property
    def first(self) -> Any:
        """The first value of a JSON array, without reading all of the file; the value itself if it is no array. None if
        the file is no JSON, or too long for a list and its first value too."""
        text = self.head.decode("utf-8", "ignore")
        start = 1 + len(text[1:]) - len(text[1:].lstrip()) if text.startswith("[") else 0
        try:
            return json.JSONDecoder().raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            pass
        if self.kind != "json" or _size(self) > MAX_BYTES:
            return None
        try:
            value = json.loads(self.data)
        except (ValueError, RecursionError):
            return None
        return next(iter(value), None) if isinstance(value, list) else value

    @cached_property
    def header(self) -> list[str]:
        """The fields of the first line of a text file, separated by commas; empty for other files."""
        if self.kind != "text":
            return []
        line = self.head.partition(b"\n")[0].decode("utf-8", "replace").removesuffix("\r")
        try:
            return [name.strip() for name in next(csv.reader([line], strict=True), [])]
        except csv.Error:
            return []

    def has_columns(self, *names: str) -> bool:
        """Whether the file is CSV with these columns."""
        return set(names) <= set(self.header)

    def rows(self, columns: list[str] | None = None) -> list[Row]:
        """The records of CSV. `columns` names those of a file without a header. Of a record with fewer or more fields
        than columns all fields are empty. Raises DataError if quotes are malformed or bytes are not text."""
        names, found, number = columns, [], 0
        csv.field_size_limit(MAX_BYTES)
        reader = csv.reader(io.StringIO(self._text(), newline=""), strict=True)
        try:
            for fields in reader:
                if names is None:
                    names = [name.strip() for name in fields]
                    continue
                number += 1
                if fields:
                    found.append(
                        Row(number, dict(zip(names, fields, strict=True)) if len(fields) == len(names) else {})
                    )
        except csv.Error as error:
            raise DataError(
                f"{self.path}: record {number + 1} has malformed quotes ({error}); correct it, or export the list again"
            ) from None
        return found

    def _text(self) -> str:
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{self.path}: {not_utf8(seems_to_be(self.data))}") from None


def _size(content: Content) -> int:
    """Bytes of the file as it lies there; of a member, decompressed."""
    return Path(content.path).stat().st_size if content.member is None else len(content.member)


def _read(path: str, compression: Compression, encoding: str, size: int) -> bytes:
    try:
        with open_text(path, compression, encoding) as stream:
            return stream.read(size)
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check the disk and try again") from None
