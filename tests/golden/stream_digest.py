"""One number for all that a dataset's stream delivers."""

import hashlib
from pathlib import Path
from typing import Literal

from streamfeat import WindowStream


def stream_digest(dataset: Path, objective: Literal["causal", "masked"]) -> str:
    """SHA-256 over the names, dtypes and bytes of all arrays of an epoch of training and of validation."""
    digest = hashlib.sha256()
    for split in ("training", "validation"):
        with WindowStream(dataset, objective=objective, batch_windows=4, seed=3, split=split) as stream:
            for batch in stream:
                for name in sorted(batch):
                    digest.update(f"{name} {batch[name].dtype.str} {batch[name].shape}".encode())
                    digest.update(batch[name].tobytes())
    return digest.hexdigest()
