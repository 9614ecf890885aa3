"""Errors that a user can fix say how."""

from pathlib import Path

import pytest

from streamfeat import errors
from streamfeat.errors import MissingExtraError, require_extra


def test_an_extra_that_is_there_is_no_error() -> None:
    """The check does not import it."""
    require_extra("numpy", "hdf5", "--hdf5")


def test_a_missing_extra_is_installed_by_the_command_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout is installed from its folder, for any working folder; a wheel by its name."""
    with pytest.raises(MissingExtraError) as raised:
        require_extra("no_such_module", "hdf5", "--hdf5")
    house = Path(__file__).parents[1]
    assert str(raised.value).endswith(f"not installed: pip install -e '{house}[hdf5]'")
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "streamfeat" / "errors.py"))
    with pytest.raises(MissingExtraError) as raised:
        require_extra("no_such_module", "hdf5", "--hdf5")
    assert str(raised.value) == "--hdf5 needs no_such_module, which is not installed: pip install 'streamfeat[hdf5]'"
