"""At which time histories are asked what comes next."""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from streamfeat.errors import ConfigError
from streamfeat.store.manifest import Manifest

TimeSource = Literal["given", "now", "last event"]

_DAY = 86_400
_STALE_DAYS = 30  # past the last trained time, now is a time that the model knows nothing of
_YEAR_10000 = 253_402_300_800


@dataclass(frozen=True)
class AskTime:
    """The time of all histories, or the rule that gives each its own."""

    at: int | None  # Unix seconds; None: each at the time of its last event
    source: TimeSource
    text: str  # which it is and why, for the user

    @classmethod
    def of(cls, at: datetime | int | None, manifest: Manifest) -> "AskTime":
        """What was given (Unix seconds; a datetime without a zone is UTC), else now, else, where now lies more than
        30 days past the last trained time, that of the last event. Raises ConfigError for a time out of range."""
        if isinstance(at, datetime):
            at = math.floor((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
        if at is not None:
            if not 0 <= at < _YEAR_10000:
                raise ConfigError(f"at {at}: a time lies between 1970 and 9999; give a date or Unix seconds")
            return cls(at, "given", f"time: {date_text(at)}, as given")
        now = int(time.time())
        days = (now - manifest.time_last) / _DAY
        if days <= _STALE_DAYS:
            return cls(now, "now", f"time: now, {date_text(now)}")
        return cls(
            None,
            "last event",
            f"time: that of each history's last event, since now lies {days:,.0f} days past the last trained time "
            f"({date_text(manifest.time_last)})",
        )

    def of_history(self, last_event: int) -> int:
        """The time to ask a history whose last event was at `last_event`, both Unix seconds."""
        return last_event if self.at is None else self.at


def date_text(unix_seconds: int) -> str:
    """A time as users read it."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
