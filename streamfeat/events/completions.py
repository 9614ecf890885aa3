"""Decides what a column of progress counts: a share, percent, or episodes of a total."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from streamfeat.events.source import CompletionUnit

# Columns of how many episodes, chapters or pages an item has, without all characters but letters and digits.
TOTALS = (
    "total", "episodes", "totalepisodes", "totalepisodescount", "numepisodes", "animenumepisodes", "seriesepisodes",
    "episodecount", "episodestotal", "chapters", "totalchapters", "numchapters", "manganumchapters", "serieschapters",
    "mangachapters", "chaptercount", "pages", "totalpages", "numpages", "numberofpages",
)  # fmt: skip
_MOST = 0.99  # the share of sampled values that must fit: the others are bad rows
_NUMBER = re.compile(r"\d+(\.\d+)?")


class Completion(NamedTuple):
    """How the column is read. `unit` is None if it is left out."""

    unit: CompletionUnit | None
    total: str  # the column of totals, for the unit "total"; otherwise empty
    note: str  # for the user; empty if the column holds shares


def recognise_completion(
    column: str, total: str | None, names: Sequence[str], values_of: Callable[[str], Sequence[str]]
) -> Completion:
    """How `column` is read, from sampled values of it and of the columns `names`. `total` is the column of totals, or
    the total of every row, that the user gave, if any.

    Values are shares if those above 1, which are bad rows then, do not outnumber those between 0 and 1. Values with a
    percent sign, or up to 100 in a column that is named after percent, are percent. Others count something: they are
    parts of a column of totals, or left out if there is none.
    """
    if total:
        return Completion("total", total, f"completion is {column} of {total}")
    values = [value.strip().replace(",", ".") for value in values_of(column) if value.strip()]
    numbers = [float(value.rstrip("% ")) for value in values if _NUMBER.fullmatch(value.rstrip("% "))]
    signs = sum(value.endswith("%") for value in values)
    if not signs and sum(number > 1 for number in numbers) <= sum(0 < number < 1 for number in numbers):
        return Completion("share", "", "")
    is_percent = signs > len(values) / 2 or re.search(r"percent|pct|%", column.lower())
    if is_percent and _most(number <= 100 for number in numbers):
        return Completion("percent", "", f"completion is {column} in percent")
    for name in names:
        if re.sub(r"[^a-z0-9]", "", name.lower()) in TOTALS and _is_total(values_of(column), values_of(name)):
            return Completion("total", name, f"completion is {column} of {name}")
    return Completion(
        None,
        "",
        f"{column} left out: it counts something, without a total (name it with --columns total=NAME, "
        "or say --constant total=100 if it is the same in every row)",
    )


def _is_total(parts: Sequence[str], totals: Sequence[str]) -> bool:
    """Whether nearly no part is larger than its total. A total of 0 is unknown."""
    pairs = [
        (float(part), float(total))
        for part, total in zip(parts, totals, strict=False)
        if _NUMBER.fullmatch(part.strip()) and _NUMBER.fullmatch(total.strip()) and float(total)
    ]
    return bool(pairs) and _most(part <= total for part, total in pairs)


def _most(fits: Iterable[bool]) -> bool:
    """Whether so many fit that the others are bad rows. True for none."""
    found = list(fits)
    return sum(found) >= _MOST * len(found)
