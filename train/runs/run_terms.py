"""The tables of a run's training events: built before the first step, kept in the run, the same on every rank."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamfeat.errors import ConfigError, DamagedError
from streamfeat.store.files import read_below
from streamfeat.store.marker import document
from streamfeat.store.writer import write_whole
from train.devices.ranks import World
from train.runs.checkpoint import STATE, checkpoint_path, saved_steps
from train.runs.folder import Run
from train.terms.terms import TERMS, Terms, build_terms

_MOST_BYTES = 2**40
_FIRST_WITH_TERMS = 2  # version of checkpoints


class RunTerms:
    """The tables with the content of their file."""

    def __init__(self, content: bytes, where: Path) -> None:
        self.digest = hashlib.sha256(content).hexdigest()
        self.tables = Terms.from_bytes(content, where)
        self._content = content

    def write(self, run: Path) -> None:
        """Writes the file, unless it is there already."""
        if _read(run) != self._content:
            write_whole(run, TERMS, self._content)


def terms_of(run: Run, world: World) -> RunTerms | None:
    """The tables of a run that trains: read from its folder, or built. None for a run that an earlier version trained
    without them. All ranks must call it; rank 0 reads and builds.

    Raises the errors of `build_terms`.
    """

    def made() -> bytes:
        if run.resumed:
            state = _newest_state(run.path)
            version, digest = state.get("format_version"), state.get("terms")
            if isinstance(version, int) and version < _FIRST_WITH_TERMS:
                return b""
            if (saved := _read(run.path)) is not None:
                # Checked before anything uses the tables: numbers of a damaged file may be out of range.
                return saved if digest is None else _checked(run.path, saved, digest)
        return build_terms(run.dataset, run.manifest).to_bytes()

    content = world.bytes_from_first(made)
    return RunTerms(content, run.path / TERMS) if content else None


def check_terms(run: Path, terms: RunTerms | None, digest: str) -> None:
    """Raises DamagedError if the tables are not those with the SHA-256 `digest`, which the model was trained with."""
    if (terms.digest if terms else "") != digest:
        raise _damaged(run)


def read_terms(run: Path, digest: str) -> Terms | None:
    """The tables with the SHA-256 `digest` ("": None) of the run folder `run`. Raises DamagedError if the run does not
    hold them."""
    return Terms.from_bytes(_checked(run, _read(run), digest), run / TERMS) if digest else None


def newest_terms(run: Path) -> tuple[Terms, str]:
    """The tables that the newest checkpoint of a run was trained with, and their SHA-256.

    Raises ConfigError if the run has no checkpoint or an earlier version trained it, and the errors of `read_terms`.
    """
    state = _newest_state(run)
    if not state:
        raise ConfigError(f"{run}: has no checkpoint yet; wait until the run has saved one")
    digest = state.get("terms")
    terms = read_terms(run, digest) if isinstance(digest, str) else None
    if terms is None:
        raise ConfigError(
            f"{run}: was trained by an earlier version, whose model does not know what is popular at a time; "
            "train again to refresh it"
        )
    return terms, str(digest)


def _checked(run: Path, content: bytes | None, digest: str) -> bytes:
    """`content`, if its SHA-256 is `digest`; otherwise raises DamagedError."""
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(run)
    return content


def _damaged(run: Path) -> DamagedError:
    return DamagedError(
        f"{run / TERMS}: is not the file that the model was trained with; restore it, or remove it and run "
        "`train --resume`, which writes it again"
    )


def _read(run: Path) -> bytes | None:
    try:
        return read_below(run, TERMS, _MOST_BYTES)
    except FileNotFoundError:
        return None


def _newest_state(run: Path) -> Mapping[str, Any]:
    """The state of the newest checkpoint of a run that can be read; empty if there is none."""
    for step in reversed(saved_steps(run)):
        if state := document(checkpoint_path(run, step), STATE):
            return state
    return {}
