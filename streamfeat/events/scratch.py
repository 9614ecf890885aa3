"""A private folder for temporary files."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamfeat.errors import StorageError


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that is removed on exit. Raises StorageError if it cannot be created."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="streamfeat-")
    except OSError as error:
        raise StorageError(
            f"cannot make a folder for temporary files ({error.strerror}); free space, or set TMPDIR to another folder"
        ) from None
    with folder as name:
        yield Path(name)
