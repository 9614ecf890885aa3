"""Compiled kernels are unpickled: only from folders that no other user can write."""

import os
import stat
from pathlib import Path

import pytest

from streamfeat import kernel_cache
from streamfeat.errors import StorageError
from streamfeat.kernel_cache import VARIABLE, find_cache, private_folder


def test_the_private_folder_is_made_once_and_used_again(tmp_path: Path) -> None:
    """Kernels are compiled once for all runs of a user; other users cannot read the folder."""
    folder = private_folder(tmp_path)
    assert stat.S_IMODE(folder.lstat().st_mode) == 0o700
    assert private_folder(tmp_path) == folder
    assert list(tmp_path.iterdir()) == [folder]


def _write_for_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def _link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("prepare", [_write_for_others, _link, Path.touch])
def test_a_folder_that_others_may_have_filled_is_not_used(tmp_path: Path, prepare: object) -> None:
    """Its name in the common temporary directory is known, so another user could create it first and leave a pickle."""
    taken = tmp_path / f"streamfeat-numba-{os.geteuid()}"
    prepare(taken)  # type: ignore[operator]
    folder = private_folder(tmp_path)
    assert folder != taken
    assert stat.S_IMODE(folder.lstat().st_mode) == 0o700
    assert private_folder(tmp_path) not in (taken, folder)


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its mode is 0700."""
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    taken = tmp_path / f"streamfeat-numba-{stranger}"
    taken.mkdir(mode=0o700)
    assert private_folder(tmp_path) != taken


def test_a_folder_that_can_be_written_needs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout, and with NUMBA_CACHE_DIR set, nothing changes."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find_cache() == Path(kernel_cache.__file__).parent / "kernels" / "__pycache__"
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert find_cache() == tmp_path / "mine"


def test_where_no_folder_can_be_written_numbas_variable_is_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary directory does not exist: the error names it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(kernel_cache, "_is_writable", lambda folder: False)
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "gone"))
    with pytest.raises((StorageError, FileNotFoundError), match="gone"):
        find_cache()
