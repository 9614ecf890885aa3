"""Times of a history that are far from those of the training events: as a rule they were read in another unit."""

import numpy as np
from numpy.typing import NDArray

from streamfeat.plain_text import date_text
from streamfeat.progress import Note
from streamfeat.store.manifest import Manifest

_YEAR = 366 * 86_400


def far_times(times: NDArray[np.int64], manifest: Manifest) -> list[Note]:
    """A warning if some of `times` (Unix seconds) lie before or after the training events by more than a year and more
    than these span."""
    origin = manifest.data_schema.time_origin
    first, last = origin + manifest.time_min, origin + manifest.time_max
    span = max(last - first, _YEAR)
    far = times[(times < first - span) | (times > last + span)]
    if not len(far):
        return []
    return [
        Note(
            f"{len(far):,} of {len(times):,} events are far from the times of training ({date_text(first)} to "
            f"{date_text(last)}), for instance {date_text(int(far[0]))}; if that is wrong, say with --time-unit what "
            "the times count or with --columns timestamp=NAME where they are",
            warning=True,
        )
    ]
