"""Ratings that mean that there is none: 0 or -1 in the files of some sites."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from streamfeat.config import BuildConfig
from streamfeat.events.role_names import plain
from streamfeat.events.source import Source


class _Site(NamedTuple):
    name: str
    columns: frozenset[str]  # that a file of the site has, as `plain` writes them
    rating: str
    unrated: tuple[float, ...]


_SITES = (
    _Site("MyAnimeList", frozenset({"myscore", "mystatus"}), "myscore", (0.0,)),
    _Site("MyAnimeList", frozenset({"animeid", "rating"}), "rating", (0.0, -1.0)),  # those that are made from its lists
    _Site("AniList", frozenset({"mediaid", "status", "score", "progress", "repeat"}), "score", (0.0,)),
    _Site("Goodreads", frozenset({"myrating", "exclusiveshelf"}), "myrating", (0.0,)),
)
_MOST_LEVELS = 128  # with more, a rating is a count, and 0 is one
_FEWEST_OTHERS = 3  # levels: -1, 0, 1 and 0, 1 are votes
_NINES = (99.0, 999.0, 9999.0)
_SMALLEST_SHARE = 0.01  # of 0: a worst rating is rare


def with_unrated(source: Source, config: BuildConfig) -> Source:
    """`source` with the ratings that mean that there is none: those of `config`, else those of the file's site."""
    if "rating" not in source.columns:
        return source
    if config.unrated != "auto":
        levels, why = config.unrated, "as asked"
    else:
        names = {plain(name) for name in source.column_names}
        column = plain(source.columns["rating"])
        site = next((site for site in _SITES if site.columns <= names and site.rating == column), None)
        if site is None:
            return source
        levels, why = site.unrated, site.name
    said = f"{source.note}; {told(levels)} is no rating ({why})" if levels else source.note
    return source.model_copy(update={"unrated": levels, "note": said})


def told(levels: Sequence[float]) -> str:
    """Ratings for the user, as `--unrated` takes them."""
    return ",".join(repr(level).removesuffix(".0") for level in levels)


def levels_apart(levels: Sequence[float]) -> tuple[float, ...]:
    """The ratings that may mean that there is none, of the distinct ratings of a dataset, the largest first.

    They are 99 (-99, 999, …) beside much smaller ones; the only negative one; 0 beside larger ones from .5 on; or the
    only rating of all if that is not positive. Each is judged beside those that remain.
    """
    rest, apart = sorted(levels), []
    if len(rest) == 1 and rest[0] <= 0:
        return (rest[0],)
    if _is_scale(rest):
        for end in (-1, 0):
            while len(rest) > 1 and abs(rest[end]) in _NINES and 4 * _size(rest, without=end) <= abs(rest[end]):
                apart.append(rest.pop(end))
        if len(rest) > 1 and rest[0] < 0 <= rest[1] and _is_scale(rest):
            apart.append(rest.pop(0))
        if len(rest) > 1 and rest[0] == 0 and rest[1] >= 0.5 and _is_scale(rest) and len(rest) <= _MOST_LEVELS:
            apart.append(rest.pop(0))
    return tuple(sorted(apart, reverse=True))


def _size(levels: Sequence[float], without: int) -> float:
    """The largest magnitude of sorted `levels` without the last or the first one."""
    others = levels[:-1] if without else levels[1:]
    return max(abs(others[0]), abs(others[-1]))


def _is_scale(levels: Sequence[float]) -> bool:
    """Whether sorted `levels` are more than votes: four and more, or three with a gap behind the first or before the
    last one that is larger than 1 and than the other, or two that differ by more than 2."""
    if len(levels) > _FEWEST_OTHERS:
        return True
    gaps = [b - a for a, b in pairwise(levels)]
    return len(gaps) > 0 and max(gaps) > (max(1, min(gaps)) if len(gaps) > 1 else 2)


def is_worth_a_word(level: float, share: float) -> bool:
    """Whether a level apart with this share of all ratings is told."""
    return share >= _SMALLEST_SHARE or level != 0
