"""Times from before 1990, and times later than their file: mostly their unit is another one, or a clock was wrong."""

import time
from pathlib import Path
from typing import get_args

from streamfeat.config import ReadingConfig, TimeUnit
from streamfeat.errors import ConfigError
from streamfeat.events.time_casts import LAST_SECOND

YEAR_1990 = 631_152_000
_NEARLY_ALL = 0.9  # of the events
_DAY = 86_400
_UNITS = [unit for unit in get_args(TimeUnit) if unit not in ("auto", "iso")]


def newest_time(path: str) -> int:
    """The last second, in Unix time, that an event of the file `path` can have: a day after its last change.

    Not of now, so that a file gives the same counts on every day. LAST_SECOND if the last change cannot be right, as in
    archives whose files are all of 1970 or 1980.
    """
    try:
        changed = int(Path(path).stat().st_mtime)
    except (OSError, ValueError):
        return LAST_SECOND
    return changed + _DAY if changed >= YEAR_1990 else LAST_SECOND


def newest_likely_time(path: str) -> int:
    """As `newest_time`; a day from now if the file's last change cannot be right."""
    return min(newest_time(path), int(time.time()) + _DAY)


def check_odd_times(config: ReadingConfig, before_1990: int, after_the_file: int, num_events: int) -> None:
    """Raises ConfigError if nearly all events are odd in one way and the user has not said what the times count."""
    if config.time_unit != "auto":
        return
    for number, when in ((before_1990, "from before 1990"), (after_the_file, "later than their file was last changed")):
        if number > _NEARLY_ALL * num_events:
            raise ConfigError(
                f"{number} of {num_events} events are {when}, so their times probably count something else than what "
                "was recognised; build with --overwrite and --columns timestamp=NAME or --time-unit "
                f"{'|'.join(_UNITS)}, or, if the dates are right, --time-unit iso, or the unit of the numbers"
            )


def odd_times_warning(config: ReadingConfig, number: int, when: str) -> str:
    """A warning about `number` events that are timed `when`, for instance "before 1990"."""
    return f"{number:,} events are timed {when}" + ("; check --time-unit" if config.time_unit == "auto" else "")
