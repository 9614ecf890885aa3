"""The slow twin of `kernels.residuals`: residuals and figures of one segment, straight from their definitions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A token of a segment."""

    item: int
    deviation: float | None  # of its rating; None: not in view or not rated
    time: int | None
    target: tuple[int, float] | None = None  # masked: item and deviation of its own rating target
    in_table: bool = False
    told: int | None = None  # causal: the time of the event that is asked after it


@dataclass(frozen=True)
class Table:
    sums: Sequence[float]  # by item
    counts: Sequence[int]
    bias: float  # of the segment's user


def residuals_of(segment: Sequence[Event], table: Table) -> list[float | None]:
    """The residual of each token; None without a rating in view."""
    ratings = [
        (of.target if of.deviation is None else (of.item, of.deviation)) if of.in_table else None for of in segment
    ]
    found: list[float | None] = []
    for event in segment:
        if event.deviation is None:
            found.append(None)
            continue
        own = [rating[1] - table.bias for rating in ratings if rating is not None and rating[0] == event.item]
        others = table.counts[event.item] - len(own)
        found.append(event.deviation - (table.sums[event.item] - sum(own)) / (others + 5))
    return found


def figures_of(segment: Sequence[Event], residuals: Sequence[float | None], at: int, *, causal: bool) -> list[float]:
    """The six figures for the event that is asked at token `at`: after it (causal), or the token itself."""
    left = [x for x in residuals[: at + 1 if causal else at] if x is not None][::-1]
    right = [] if causal else [x for x in residuals[at + 1 :] if x is not None]
    aged = [*enumerate(left), *enumerate(right)]
    k = len(aged)
    decayed = []
    for half_life in (3, 12):
        weights = [2 ** (-age / half_life) for age, _ in aged]
        decayed.append(sum(w * x for w, (_, x) in zip(weights, aged, strict=True)) / (sum(weights) + 1.5))
    session = [x for x in _session(segment, residuals, at, causal=causal) if x is not None]
    return [
        sum(x for _, x in aged) / (k + 3),
        math.log(1 + k) - 3,
        *decayed,
        sum(session) / (len(session) + 3),
        (sum(x * x for _, x in aged) + 3) / (k + 3) - 1,
    ]


def _session(
    segment: Sequence[Event], residuals: Sequence[float | None], at: int, *, causal: bool
) -> list[float | None]:
    """The residuals of the asked event's session."""
    seen = list(segment[: at + 1] if causal else segment)
    times = [event.time for event in seen] + ([segment[at].told] if causal else [])
    number, last, numbers = 0, None, []
    for time in times:  # an event whose time is hidden belongs to the session before it
        if time is not None:
            number += last is not None and time - last > 300
            last = time
        numbers.append(number)
    asked = numbers[-1] if causal else numbers[at]
    return [x for x, number in zip(residuals, numbers[: len(seen)], strict=False) if number == asked]
