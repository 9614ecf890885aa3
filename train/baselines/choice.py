"""Chooses the settings of a baseline: the best ones on validation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S")
D = TypeVar("D", bound="DataclassInstance")

# The figure of a fitted system on validation, higher is better; None: there is no validation case.
Measure = Callable[[S], float] | None


def best_of(candidates: Iterable[S], measure: Measure[S]) -> S:
    """The candidate with the highest figure, of equal ones the first; without validation cases the first.

    Candidates are taken one by one, so memory holds the best and one more.
    """
    rest = iter(candidates)
    best = next(rest)
    if measure is None:
        return best
    highest = measure(best)
    for candidate in rest:
        figure = measure(candidate)
        if figure > highest:
            best, highest = candidate, figure
        del candidate  # a table of pairs takes 1 GiB: it must not live on while the next one is made
    return best


def best_settings(system: D, grid: Sequence[tuple[str, Sequence[float]]], measure: Measure[D]) -> D:
    """`system` with one field after the other of `grid` set to its best value, the others staying as they are.

    The fields are gone through twice, because the best value of one depends on the others.
    """
    if measure is None:
        return system
    highest, unchanged = measure(system), 0
    for field, values in (*grid, *grid):
        if unchanged == len(grid):  # since the last change every field was tried
            break
        unchanged, start = unchanged + 1, getattr(system, field)
        for value in values:
            candidate = replace(system, **{field: value})
            if value != start and (figure := measure(candidate)) > highest:
                system, highest, unchanged = candidate, figure, 1
    return system
