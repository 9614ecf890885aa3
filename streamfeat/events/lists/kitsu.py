"""Kitsu: library entries as the API gives them. Its XML export has MyAnimeList's form."""

from typing import Any

from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import Entry, SiteList, share
from streamfeat.events.lists.values import at, dicts, text, titled

_MEDIA = ("anime", "manga")


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    value = content.first if content.kind == "json" and content.head.startswith(b"{") else None
    listed = [one for one in dicts(at(value, "data")) if text(one, "type") == "libraryEntries"]
    if not listed:
        return None
    included = {(text(one, "type"), text(one, "id")): at(one, "attributes") for one in dicts(at(value, "included"))}
    account = next((text(facts, "name") for (kind, _), facts in included.items() if kind == "users"), "")
    names_user = any(kind == "users" for kind, _ in included)
    entries = [_entry(row, one, included, names_user=names_user) for row, one in enumerate(listed, start=1)]
    return SiteList("library", entries, account, "end, else last progress, else start, else last change")


def _entry(row: int, one: dict[str, Any], included: dict[tuple[str, str], Any], *, names_user: bool) -> Entry:
    medium, item = next(
        ((kind, found) for kind in _MEDIA if (found := text(one, "relationships", kind, "data", "id"))), ("", "")
    )
    media, facts = included.get((medium, item)), at(one, "attributes")
    times = ("finishedAt", "progressedAt", "startedAt", "updatedAt", "createdAt")
    return Entry(
        row,
        item=item,
        medium=medium or "anime",
        time=next((found for name in times if (found := text(facts, name))), ""),
        title=titled(text(media, "canonicalTitle"), text(media, "startDate")[:4]),
        rating=text(facts, "ratingTwenty"),
        status=text(facts, "status"),
        completion=share(text(facts, "progress"), text(media, "episodeCount") or text(media, "chapterCount")),
        user="" if names_user else text(one, "relationships", "user", "data", "id"),
    )
