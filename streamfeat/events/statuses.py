"""The words for the statuses of schema.STATUSES, as sites and logs write them."""

import re

from streamfeat.schema import STATUSES

# Words without case, spaces, hyphens and underscores. Those of MyAnimeList, AniList, Kitsu, Goodreads, Trakt, Simkl.
_WORDS: dict[str, tuple[str, ...]] = {
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
_STATUS_OF_WORD = {word: status for status, words in _WORDS.items() for word in words}

# pandas turns integers with missing values into floats, so "2.0" occurs.
_STATUS_OF_NUMBER = {text: name for code, name in enumerate(STATUSES) for text in (str(code), f"{code}.0")}


def status_of(word: str) -> str | None:
    """The status that a word or a number from 0 (planned) to 4 (dropped) means; None if it is not known."""
    word = word.strip()
    return _STATUS_OF_NUMBER.get(word) or _STATUS_OF_WORD.get(re.sub(r"[\s_-]+", "", word.lower()))
