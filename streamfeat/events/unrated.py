"""Ratings that mean that there is none: 0 or -1 in the files of some sites."""

from collections.abc import Sequence
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
_MOST_LEVELS = 128  # with more, a rating is a count
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


def level_apart(levels: Sequence[float]) -> float | None:
    """The rating that may mean that there is none, of the distinct ratings of a dataset; None if there is none such.

    It is the only negative one, 0 beside larger ones from .5 on, 99 (999, 9999) beside much smaller ones, or the only
    one at all if that is not positive.
    """
    levels = sorted(levels)
    if len(levels) == 1 and levels[0] <= 0:
        return levels[0]
    if not _FEWEST_OTHERS < len(levels) <= _MOST_LEVELS:
        return None
    least, second, largest = levels[0], levels[1], levels[-1]
    if (least < 0 <= second) or (least == 0 and second >= 0.5):
        return least
    return largest if largest in _NINES and levels[-2] * 4 <= largest else None


def is_worth_a_word(level: float, share: float) -> bool:
    """Whether a level apart with this share of all ratings is told."""
    return share >= _SMALLEST_SHARE or level != 0
