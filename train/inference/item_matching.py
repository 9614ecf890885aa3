"""Finds a history's items among those of a run: by medium and id, or by title and year where ids are another site's."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamfeat.events.event_reader import DEFAULT_MEDIUM
from streamfeat.events.user_histories import UserHistories
from streamfeat.progress import Note
from train.inference.catalogue import Catalogue

Match = Literal["auto", "id", "title"]

_YEAR = re.compile(r"(.*\S)\s*\((\d{4})\)\s*")
_INSIDE = re.compile(r"\s*\(([^()]*)\)")
_ARTICLE = re.compile(r"(.+), (the|a|an|les|le|la|l'|der|die|das|el|los|las|il|lo|i)")
_COMPARED = 5  # so many titles of items that ids match say whether the ids are those of the run


@dataclass(frozen=True)
class Found:
    """The run's items for a history's items."""

    dense: NDArray[np.int64]  # (items of the history,); -1 if the run does not know the item
    notes: tuple[Note, ...]  # how they were found


def find_items(catalogue: Catalogue, histories: UserHistories, how: Match) -> Found:
    """The items of `histories`. With "auto" by title where that is needed: the run knows fewer than half of the ids, or
    most of the known ones have another title there.

    A history of one medium has that of a run whose files named none.
    """
    items, notes = histories.items, []
    media = {medium for medium, _ in items}
    if catalogue.media == (DEFAULT_MEDIUM,) and len(media) == 1 and media != {DEFAULT_MEDIUM}:
        items = [(DEFAULT_MEDIUM, raw_id) for _, raw_id in items]
        notes.append(Note(f"the history's medium {media.pop()} is taken for that of the run, whose files named none"))
    by_id = catalogue.dense(items)
    if how == "id" or (how == "auto" and not (any(histories.titles) and _are_others(catalogue, histories, by_id))):
        return Found(by_id, tuple(notes))
    by_title = _by_title(catalogue, histories)
    known, count = int((by_id >= 0).sum()), int((by_title >= 0).sum())
    if how == "auto" and not count:
        return Found(by_id, tuple(notes))
    why = "as asked" if how == "title" else f"their ids are not the run's: it knows {known:,}, which --match id uses"
    notes.append(Note(f"items matched by title and year: {count:,} of {len(items):,} ({why})", warning=how == "auto"))
    return Found(by_title, tuple(notes))


def _are_others(catalogue: Catalogue, histories: UserHistories, by_id: NDArray[np.int64]) -> bool:
    """Whether the ids of the history seem to be those of another site."""
    known = np.flatnonzero(by_id >= 0).tolist()
    if 2 * len(known) < len(by_id):
        return True
    pairs = [(histories.titles[place], catalogue.title(int(by_id[place])) or "") for place in known]
    same = [not _names(one).isdisjoint(_names(other)) for one, other in pairs if one and other]
    return len(same) >= _COMPARED and 2 * sum(same) < len(same)


def _by_title(catalogue: Catalogue, histories: UserHistories) -> NDArray[np.int64]:
    """Dense ids by title and year, -1 where there is no such title or where it stands for several items.

    The years are equal or one apart, or one of both titles has none. Of a medium of the run only its items count.
    """
    of_name: dict[str, list[int]] = defaultdict(list)
    for item, title in enumerate(catalogue.titles):
        for name in _names(title or ""):
            of_name[name].append(item)
    dense = np.full(len(histories.items), -1, np.int64)
    for place, ((medium, _), title) in enumerate(zip(histories.items, histories.titles, strict=True)):
        in_medium = medium in catalogue.media
        items = dict.fromkeys(item for name in _names(title) for item in of_name.get(name, ()))
        found = [item for item in items if not in_medium or catalogue.medium(item) == medium]
        dense[place] = _of_year(catalogue, found, _year(title))
    return dense


def _of_year(catalogue: Catalogue, items: list[int], year: int | None) -> int:
    """The item of the year; else the only one of a year next to it; else the only one, if a year is missing."""
    years = {item: _year(catalogue.title(item) or "") for item in items}
    if year is None:
        chosen = items
    else:
        exact = [item for item in items if years[item] == year]
        near = [item for item, other in years.items() if other is not None and abs(other - year) == 1]
        chosen = exact or near or [item for item in items if years[item] is None]
    return chosen[0] if len(chosen) == 1 else -1


def _year(title: str) -> int | None:
    match = _YEAR.fullmatch(title)
    return int(match[2]) if match else None


def _names(title: str) -> frozenset[str]:
    """The names of an item in a form that sites share: the title without its year, and each name in parentheses."""
    match = _YEAR.fullmatch(title)
    name = match[1] if match else title
    return frozenset(filter(None, map(_plain, _all_names(name))))


def _all_names(name: str) -> Iterator[str]:
    yield _INSIDE.sub("", name) or name
    for inside in _INSIDE.findall(name):
        yield re.sub(r"^a\.?k\.?a\.? ", "", inside, flags=re.IGNORECASE)


def _plain(name: str) -> str:
    """Lower case, without accents and punctuation, an article in front: `Matrix, The` is `the matrix`."""
    lower = unicodedata.normalize("NFKD", name.casefold().strip())
    if match := _ARTICLE.fullmatch(lower):
        lower = f"{match[2]} {match[1]}"
    letters = "".join(character for character in lower.replace("&", " and ") if not unicodedata.combining(character))
    return " ".join(re.sub(r"[^\w\s]|_", " ", letters.replace("'", "").replace("’", "")).split())
