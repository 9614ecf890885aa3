"""A file that may be a list: its kind, its first bytes, and what it holds, read once and within bounds."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from streamfeat.errors import DataError, StorageError
from streamfeat.events.lists.xml_records import Record, read_records
from streamfeat.events.source import Compression
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text

MAX_BYTES = 1 << 27  # of a list, decompressed: the largest exports have some 20 MB
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Content:
    """A file that may be a list. `path` names it in errors."""

    path: str
    compression: Compression
    head: bytes  # its first bytes, decompressed, without a byte order mark

    @classmethod
    def of(cls, path: str, compression: Compression) -> "Content":
        """The content of the file at `path`. Raises DataError if its gzip is damaged, StorageError for the disk."""
        head = _read(path, compression, _HEAD_BYTES)
        return cls(path, compression, head.removeprefix(BOM).lstrip())

    @cached_property
    def kind(self) -> Literal["xml", "json", "text"]:
        """What the first character says."""
        first = self.head[:1]
        return "xml" if first == b"<" else "json" if first in (b"{", b"[") else "text"

    @cached_property
    def data(self) -> bytes:
        """The whole file, decompressed. Raises DataError if it is too long for a list."""
        data = _read(self.path, self.compression, MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(
                f"{self.path}: is longer than {MAX_BYTES:,} bytes, which no list is; give a table of events"
            )
        return data.removeprefix(BOM)

    @cached_property
    def xml(self) -> tuple[str, list[Record]]:
        """The name of the root and its records. Raises DataError."""
        return read_records(self.path, self.data)


def _read(path: str, compression: Compression, size: int) -> bytes:
    try:
        with open_text(path, compression) as stream:
            return stream.read(size)
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check the disk and try again") from None
