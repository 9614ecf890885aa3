"""Refuses a dataset that a model cannot learn from: no training event has an item target."""

from pathlib import Path

from streamfeat.errors import DataError
from streamfeat.store.manifest import Manifest


def check_targets(dataset: Path, manifest: Manifest) -> None:
    """Raises DataError if no training event of `dataset` has an item target."""
    if not any(scale.targets for scale in manifest.scales):
        raise DataError(
            f"{dataset}: none of its training events has an item target, because all of them are planned, so there is "
            "nothing to train and nothing to evaluate; build a dataset of events that took place (if the column of "
            "status was misunderstood, give --columns status=NAME, or --columns status= for none)"
        )
