"""The checkpoint of a run that is asked for by name, and the digest of its weights."""

import re
from pathlib import Path

from streamfeat.errors import ConfigError, DamagedError
from streamfeat.store.files import read_below, size_and_digest
from train.runs.checkpoint import BEST, CHECKPOINTS, LATEST, MODEL

_STEP = re.compile(r"step-\d{8,}")
_MOST_POINTER_BYTES = 4096  # size limit of the files `best` and `latest`


def checkpoint_folder(run: Path, name: str) -> Path:
    """The folder of the checkpoint `name` of a run: `best` (the latest if the run had no validation), `latest`, or the
    name of a step's folder.

    Raises ConfigError if there is none, DamagedError if the file `best` or `latest` is damaged.
    """
    if _STEP.fullmatch(name):
        folder = run / CHECKPOINTS / name
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such checkpoint; give an existing one, {BEST} or {LATEST}")
        return folder
    if name not in (BEST, LATEST):
        raise ConfigError(f"checkpoint {name!r}: is neither {BEST} nor {LATEST} nor a folder such as step-00000500")
    for pointer in (BEST, LATEST) if name == BEST else (LATEST,):
        try:
            named = read_below(run, pointer, _MOST_POINTER_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        parent, _, step = named.strip().rpartition("/")
        if parent != CHECKPOINTS or not _STEP.fullmatch(step):
            raise DamagedError(f"{run / pointer}: does not name a checkpoint; write {CHECKPOINTS}/step-… into it")
        return run / CHECKPOINTS / step
    raise ConfigError(f"{run}: has no checkpoint yet; wait until the run has saved one")


def weights_sha256(checkpoint: Path) -> str:
    """The SHA-256 of the weights in the folder of a checkpoint. Raises DamagedError if they are missing."""
    try:
        return size_and_digest(checkpoint, MODEL)[1]
    except FileNotFoundError:
        raise DamagedError(f"{checkpoint / MODEL}: is missing; restore it, or take another checkpoint") from None
