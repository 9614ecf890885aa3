"""Opens a text file as a stream of UTF-8: decompresses it, and converts it from its encoding."""

import codecs
import gzip
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from streamfeat.errors import DataError
from streamfeat.events.source import Compression

BOM = b"\xef\xbb\xbf"
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
_READ_BYTES = 1 << 18
# gzip compresses tables of events 3 to 20 times. A file that decompresses to more than this is made to fill memory.
MAX_GZIP_RATIO = 100
_GZIP_FREE_BYTES = 1 << 26  # up to this size every ratio is allowed


class _Unpacked(gzip.GzipFile):
    """A gzip file that raises DataError if it decompresses to more than MAX_GZIP_RATIO times its size."""

    def read(self, size: int | None = -1) -> bytes:
        """As for any file. Without a size it reads in parts, so that the ratio is checked early."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_READ_BYTES), b""))
        data = super().read(size)
        packed = os.fstat(self.fileno()).st_size
        if self.tell() > max(_GZIP_FREE_BYTES, MAX_GZIP_RATIO * packed):
            raise DataError(
                f"{self.name}: {packed:,} bytes of gzip decompress to more than {self.tell():,}, over {MAX_GZIP_RATIO} "
                "times as much, which is unusual for events; if the file is right, decompress it and give the result"
            )
        return data


_UNDECODABLE = "streamfeat.undecodable"
# A bad sequence becomes a lone surrogate, whose bytes are not UTF-8: the row is rejected if a role needs the field.
codecs.register_error(_UNDECODABLE, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))


class _Converted:
    """A text file in another encoding as a stream of UTF-8 that can be read forwards only."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_UNDECODABLE)
        self._held = bytearray()
        self._ended = False
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """As for any file."""
        while not self._ended and (size < 0 or len(self._held) < size):
            data = self._stream.read(_READ_BYTES)
            self._ended = not data
            self._held += self._decoder.decode(data, final=self._ended).encode("utf-8", "surrogatepass")
        size = len(self._held) if size < 0 else size
        data = bytes(self._held[:size])
        del self._held[:size]
        self._position += len(data)
        return data

    def seek(self, position: int) -> int:
        """Reads on to `position`, which is not before the present one."""
        assert position >= self._position, f"{position} is before {self._position}"
        while self._position < position and self.read(min(_READ_BYTES, position - self._position)):
            pass
        return self._position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()


def open_text(path: str, compression: Compression, encoding: str = "") -> BinaryIO:
    """The UTF-8 text of a file. `encoding` is "" for a file that is UTF-8, whose bytes come as they are.

    Bytes that `encoding` does not know become bytes that are not UTF-8. Reading raises DataError if the file
    decompresses to far too much.
    """
    stream = _Unpacked(path, "rb") if compression == "gzip" else Path(path).open("rb")  # noqa: SIM115
    return cast(BinaryIO, _Converted(cast(BinaryIO, stream), encoding) if encoding else stream)


def damaged_gzip(path: str, error: Exception) -> DataError:
    """The error for a gzip file that cannot be decompressed."""
    return DataError(f"{path}: the gzip file is damaged or cut short ({error}); fetch or compress it again")
