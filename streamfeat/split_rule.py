"""The rule of a build by which events are for training, for validation or for the test, read from its text."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

_FORMS = (
    "split must be last:2, or users:F with 0 < F < 1, for instance users:0.01, or time:F with 0 < F < 0.5, for "
    "instance time:0.1, or time:DATE or time:DATE,DATE, for instance time:2026-05-01,2026-06-01"
)


@dataclass(frozen=True)
class SplitRule:
    """One of `users:F`, `last:2`, `time:F`, `time:T1` and `time:T1,T2`."""

    kind: Literal["users", "last", "time"]
    share: float = 0.0  # F; 0 in the other forms
    dates: tuple[int, ...] = ()  # T1, or T1 and T2, in Unix seconds; empty in the other forms

    @classmethod
    def of(cls, text: str) -> "SplitRule":
        """The rule that `text` writes. Raises ValueError, with all forms, if it is none."""
        kind, _, value = text.partition(":")
        if text == "last:2":
            return cls("last")
        if kind == "users" and (share := _share(value, 1.0)):
            return cls("users", share)
        if kind == "time" and (share := _share(value, 0.5)):
            return cls("time", share)
        dates = tuple(_unix_seconds(date) for date in value.split(",")) if kind == "time" else ()
        known = tuple(date for date in dates if date is not None)
        if not 1 <= len(known) == len(dates) <= 2:
            raise ValueError(f"{_FORMS}; got {text!r}")
        if sorted(set(known)) != list(known):
            raise ValueError(
                f"split {text!r}: validation begins at the first date, the test at the second one, which must be later"
            )
        return cls("time", dates=known)


def _share(text: str, bound: float) -> float:
    """`text` as a number above 0 and below `bound`; 0 if it is none."""
    try:
        share = float(text)
    except ValueError:
        return 0.0
    return share if 0 < share < bound else 0.0


def _unix_seconds(text: str) -> int | None:
    """An ISO date or time (UTC if it names no zone) in Unix seconds, rounded down; None if `text` is neither."""
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return math.floor((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
