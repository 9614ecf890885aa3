"""The words and numbers for the statuses of schema.STATUSES, as sites and logs write them."""

import re
from collections.abc import Iterable, Mapping, Sequence

from streamfeat.schema import STATUSES

# Words without case, spaces, hyphens and underscores. Those of MyAnimeList, AniList, Kitsu, Goodreads, Trakt, Simkl.
WORDS: dict[str, tuple[str, ...]] = {
    "planned": (
        "planned", "planning", "plan", "plantowatch", "plantoread", "plantoplay", "ptw", "ptr", "towatch", "toread",
        "wanttowatch", "wanttoread", "watchlist", "wishlist", "backlog",
    ),
    "watching": (
        "watching", "reading", "playing", "listening", "current", "currentlywatching", "currentlyreading", "inprogress",
        "repeating", "rewatching", "rereading",
    ),
    "completed": ("completed", "complete", "finished", "watched", "read", "played", "seen", "done"),
    "on_hold": ("onhold", "hold", "paused"),
    "dropped": ("dropped", "didnotfinish", "dnf", "abandoned", "notinteresting"),
}  # fmt: skip
_STATUS_OF_WORD = {word: status for status, words in WORDS.items() for word in words}

# 0 to 4 are the places in schema.STATUSES. MyAnimeList counts 1 to 4 in the same order, and its 6 is planned.
NUMBERS = {"0": "planned", "1": "watching", "2": "completed", "3": "on_hold", "4": "dropped", "6": "planned"}
_OF_MYANIMELIST = ("mystatus", "watchingstatus")  # its columns, as `_plain` writes them: 1 alone is a status there
_SHOWN = 3  # words in an error


def _plain(word: str) -> str:
    return re.sub(r"[\s_-]+", "", word.lower())


def whole_number(word: str) -> str:
    """`word` without the `.0` that pandas gives integers in a column with missing values."""
    return word.strip().removesuffix(".0")


def status_of(word: str, given: Mapping[str, str]) -> str | None:
    """The status that a word means; None if it is not known. `given` has further words and numbers, and comes first."""
    number = whole_number(word)
    return given.get(word.strip()) or given.get(number) or _STATUS_OF_WORD.get(_plain(word))


def recognise_statuses(column: str, values: Sequence[str], given: Mapping[str, str]) -> dict[str, str] | None:
    """The words and numbers, beside WORDS, that mean a status in the column: `given` and, if the sampled `values`
    have them, NUMBERS. None if the column holds no statuses: nothing but 0 and 1 (a flag), none of them in `given`.

    A column that MyAnimeList names may hold 1 alone.
    """
    numbers = {whole_number(value) for value in values if value.strip()} - {whole_number(word) for word in given}
    numbers = {number for number in numbers if number.isdecimal()}
    flags = {"1"} if _plain(column) in _OF_MYANIMELIST else set()
    if numbers and numbers <= {"0", "1"} and not numbers <= flags:
        return dict(given) if given else None
    return {**(NUMBERS if numbers else {}), **given}


def advice(values: Iterable[str]) -> str:
    """What to do about words that mean no status."""
    words = list(dict.fromkeys(value for value in values))[:_SHOWN]
    given = ",".join(f"{word}={STATUSES[2]}" for word in words)
    known = "; ".join(f"{status}: {', '.join(others)}" for status, others in WORDS.items())
    return (
        f"unknown_status: say what the words mean with --status '{given}' ({', '.join(STATUSES)}), or leave the column "
        f"out with --columns status=; known are {known}"
    )
