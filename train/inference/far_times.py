"""Times of a history that are far from those of the training events: as a rule they were read in another unit."""

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import ReadingConfig
from streamfeat.plain_text import date_text
from streamfeat.progress import Note
from streamfeat.store.manifest import Manifest

_YEAR = 366 * 86_400


def far_times(times: NDArray[np.int64], manifest: Manifest, config: ReadingConfig) -> list[Note]:
    """A warning if some of `times` (Unix seconds) lie before or after the training events by more than a year and more
    than these span. It names no option that `config` has already."""
    origin = manifest.data_schema.time_origin
    first, last = origin + manifest.time_min, origin + manifest.time_max
    span = max(last - first, _YEAR)
    far = times[(times < first - span) | (times > last + span)]
    if not len(far):
        return []
    remedies = [
        *(["say with --time-unit what they count"] if config.time_unit == "auto" else []),
        *(["say with --columns timestamp=NAME where they are"] if "timestamp" not in config.columns else []),
    ]
    remedy = f"; if that is wrong, {' or '.join(remedies)}" if remedies else ""
    return [
        Note(
            f"{len(far):,} of {len(times):,} events are far from the times of training ({date_text(first)} to "
            f"{date_text(last)}), for instance {date_text(int(far[0]))}{remedy}",
            warning=True,
        )
    ]
