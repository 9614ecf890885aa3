"""The time for which the next event is predicted."""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from streamfeat.errors import ConfigError
from streamfeat.plain_text import date_text

TimeSource = Literal["given", "now", "last event"]

_DAY = 86_400
_STALE_DAYS = 30  # if now is more than this after the last counted event, the model knows nothing about now
_YEAR_10000 = 253_402_300_800


@dataclass(frozen=True)
class AskTime:
    """One time for all histories, or each history's own."""

    at: int | None  # Unix seconds; None: for each history the time of its last event
    source: TimeSource
    text: str  # tells the user which time it is and why

    @classmethod
    def of(cls, at: datetime | int | None, last_counted: int) -> "AskTime":
        """The given time `at`: Unix seconds, or a datetime (UTC if it has no zone). Without it: now. But if now is more
        than 30 days after `last_counted` (Unix seconds), the last event that the run knows the popularity of: the time
        of each history's last event.

        Raises ConfigError for a time out of range.
        """
        if isinstance(at, datetime):
            at = math.floor((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
        if at is not None:
            if not 0 <= at < _YEAR_10000:
                raise ConfigError(f"at {at}: must lie in the years 1970 to 9999; give a date or Unix seconds")
            return cls(at, "given", f"time: {date_text(at)}, as given")
        now = int(time.time())
        days = (now - last_counted) / _DAY
        if days <= _STALE_DAYS:
            return cls(now, "now", f"time: now, {date_text(now)}")
        return cls(
            None,
            "last event",
            f"time: that of each history's last event, because now is {days:,.0f} days after the last event that the "
            f"run knows ({date_text(last_counted)}); count newer ones with refresh, or train again",
        )

    def of_history(self, last_event: int) -> int:
        """The time for a history whose last event was at `last_event`; both Unix seconds."""
        return last_event if self.at is None else self.at
