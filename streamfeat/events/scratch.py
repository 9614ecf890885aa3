"""A private folder for temporary files, gone when it is left."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamfeat.errors import StorageError


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Raises StorageError where none can be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="streamfeat-")
    except OSError as error:
        raise StorageError(
            f"no folder for temporary files can be made ({error.strerror}); make space, or name another with TMPDIR"
        ) from None
    with folder as name:
        yield Path(name)
