"""Simkl: the JSON of its backup, which is that of its API for all items."""

from typing import Any

from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import Entry, SiteList, share
from streamfeat.events.lists.values import at, dicts, text, titled

_MEDIA = {"shows": "series", "anime": "anime", "movies": "film"}
_TIMES = ("last_watched_at", "user_rated_at", "added_to_watchlist_at")


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    value = content.first if content.kind == "json" and content.head.startswith(b"{") else None
    listed = [(medium, one) for key, medium in _MEDIA.items() for one in dicts(at(value, key)) if _media(one)]
    if not listed or not text(listed[0][1], "status"):
        return None
    entries = [_entry(row, medium, one) for row, (medium, one) in enumerate(listed, start=1)]
    return SiteList("list", entries, times="last watched, else rated, else added")


def _media(one: dict[str, Any]) -> Any:
    return at(one, "show") or at(one, "movie") or at(one, "anime")


def _entry(row: int, medium: str, one: dict[str, Any]) -> Entry:
    media = _media(one)
    return Entry(
        row,
        item=text(media, "ids", "simkl") or text(media, "ids", "simkl_id"),
        medium=medium,
        time=next((found for name in _TIMES if (found := text(one, name))), ""),
        title=titled(text(media, "title"), text(media, "year")),
        rating=text(one, "user_rating"),
        status=text(one, "status"),
        completion=share(text(one, "watched_episodes_count"), text(one, "total_episodes_count")),
    )
