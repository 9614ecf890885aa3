"""Reads the small text files of an archive into memory, within bounds. Nothing is written to the disk."""

import stat
import struct
import zipfile
import zlib
from pathlib import PurePosixPath

from streamfeat.errors import DataError

MAX_MEMBERS = 10_000
MAX_RATIO = 200  # exports compress 3 to 30 times; an archive that is made to fill memory 1,000 times
_FREE_BYTES = 1 << 20  # up to this size every ratio is allowed
# Errors that zipfile raises for damaged archives; it seeks to places that they name.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError,
    LookupError, OverflowError,
)  # fmt: skip
_WANTED = (".csv", ".json", ".xml")


def read_members(path: str, max_bytes: int) -> dict[str, bytes]:
    """The CSV, JSON and XML files of the archive by their path in it; together at most `max_bytes`.

    Links, encrypted members and paths that lead out of the archive are refused. Raises DataError for these, for more
    than MAX_MEMBERS members, for sizes above the bounds, and for a damaged archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > MAX_MEMBERS:
                raise _refused(path, f"has {len(infos):,} members, more than {MAX_MEMBERS:,}")
            wanted = [info for info in infos if _is_wanted(path, info)]
            if sum(info.file_size for info in wanted) > max_bytes:
                raise _refused(path, f"holds more than {max_bytes:,} bytes")
            found: dict[str, bytes] = {}
            for info in wanted:
                if info.file_size > max(_FREE_BYTES, MAX_RATIO * info.compress_size):
                    raise _refused(path, f"{info.filename!r} is compressed more than {MAX_RATIO} times")
                with archive.open(info) as member:
                    # Not more than the archive says: a member may decompress to more than its stated size.
                    found[info.filename] = member.read(info.file_size)
            return found
    except _UNREADABLE as error:
        raise DataError(f"{path}: the archive is damaged ({error}); export it again") from None


def _is_wanted(path: str, info: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise _refused(path, f"{info.filename!r} leads out of the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _refused(path, f"{info.filename!r} is a link")
    if info.is_dir() or name.suffix.lower() not in _WANTED:
        return False
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused(path, f"{info.filename!r} is compressed in an unusual way")
    if info.flag_bits & 1:
        raise _refused(path, f"{info.filename!r} is encrypted")
    return True


def _refused(path: str, why: str) -> DataError:
    return DataError(f"{path}: the archive {why}; unpack it and give the file of events inside")
