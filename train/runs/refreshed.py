"""`RUN/refreshed.safetensors`: the tables of training events with newer events counted in, beside those of training.

`recommend` uses them. Training and evaluation use the tables of training, so that neither changes.
"""

import hashlib
import json
from pathlib import Path

from streamfeat.errors import DamagedError
from streamfeat.store.files import read_below
from streamfeat.store.writer import write_whole
from train.terms.terms import Terms

REFRESHED = "refreshed.safetensors"

_MOST_BYTES = 2**40
_REMEDY = "remove it and run `refresh` again with all events since training"
_OF_TRAINING, _OWN = "terms_sha256", "content_sha256"


def read_refreshed(run: Path, digest: str) -> Terms | None:
    """The refreshed tables of the run folder `run`; None without any. `digest` is the SHA-256 of the tables that its
    model was trained with. Raises DamagedError if they are damaged or were made of others."""
    try:
        content = read_below(run, REFRESHED, _MOST_BYTES)
    except FileNotFoundError:
        return None
    facts = _facts(content)
    terms = Terms.from_bytes(content, run / REFRESHED, _REMEDY)
    if facts != _facts_of(terms, digest):
        raise DamagedError(f"{run / REFRESHED}: is damaged, or belongs to another run; {_REMEDY}")
    return terms


def write_refreshed(run: Path, terms: Terms, digest: str) -> None:
    """Replaces the refreshed tables of `run`, whose lock the caller holds. A reader sees the old or the new ones."""
    write_whole(run, REFRESHED, terms.to_bytes(_facts_of(terms, digest)))


def _facts_of(terms: Terms, digest: str) -> dict[str, str]:
    return {_OF_TRAINING: digest, _OWN: hashlib.sha256(terms.to_bytes()).hexdigest()}


def _facts(content: bytes) -> object:
    """The texts in the header of a safetensors file; None if there are none."""
    try:
        length = int.from_bytes(content[:8], "little")
        return json.loads(content[8 : 8 + length]).get("__metadata__")
    except (ValueError, AttributeError):
        return None
