"""AniList: the export of an account ("GDPR"), and what the API answers to MediaListCollection and MediaList."""

from typing import Any

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import Entry, SiteList, rated, share
from streamfeat.events.lists.values import at, dicts, text, titled

_STATUSES = ("current", "planning", "completed", "dropped", "paused", "repeating")  # by the export's numbers
_TYPES = ("anime", "manga")  # by the export's numbers
_TIMES = "completed date, else start date, else the last change"


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    if content.kind != "json" or not content.head.startswith(b"{"):
        return None
    value = content.first
    if any("series_id" in one for one in dicts(at(value, "lists"))[:1]):
        return _export(value)
    answer = at(value, "data") or value
    found = [(key, one) for key, one in answer.items() if _entries_of(one)] if isinstance(answer, dict) else []
    if not found:
        return None
    asked = [
        (_medium_of(key, text(answer, "type"), content.path), entry) for key, one in found for entry in _entries_of(one)
    ]
    entries: dict[tuple[str, str], Entry] = {}
    for row, (medium, entry) in enumerate(asked, start=1):  # custom lists hold entries of other lists again
        made = _answered(row, entry, medium)
        entries.setdefault((made.medium, made.item), made)
    names = [
        text(answer, "User", "name"),
        text(answer, "Viewer", "name"),
        *(text(one, "user", "name") for _, one in found),
    ]
    return SiteList("list", list(entries.values()), next(filter(None, names), ""), _TIMES)


def _entries_of(collection: Any) -> list[dict[str, Any]]:
    """The entries of an answer to MediaListCollection, or of a page of MediaList, each with its list's status."""
    lists = dicts(at(collection, "lists"))
    found = [{"status": at(one, "status")} | entry for one in lists for entry in dicts(at(one, "entries"))]
    found += dicts(at(collection, "mediaList"))
    return found if all("mediaId" in entry or text(entry, "media", "id") for entry in found) else []


def _medium_of(key: str, kind: str, path: str) -> str:
    """The medium of entries that do not say: that of the answer, else of its name, else of the file's name."""
    said = (kind, key, path)
    return next((medium for name in said for medium in _TYPES if medium in name.lower()), "anime")


def _answered(row: int, entry: dict[str, Any], medium: str) -> Entry:
    media = at(entry, "media")
    medium = text(media, "type").lower() or ("manga" if text(media, "chapters") else medium)
    total = text(media, "episodes") if medium == "anime" else text(media, "chapters")
    title = next(
        filter(None, (text(media, "title", name) for name in ("userPreferred", "english", "romaji", "native"))), ""
    )
    return Entry(
        row,
        item=text(entry, "mediaId") or text(media, "id"),
        medium=medium,
        time=_fuzzy(at(entry, "completedAt"))
        or _fuzzy(at(entry, "startedAt"))
        or dates.from_unix(at(entry, "updatedAt") or at(entry, "createdAt")),
        title=titled(title, text(media, "startDate", "year") or text(media, "seasonYear")),
        rating=rated(text(entry, "score")),
        status=text(entry, "status"),
        completion=share(text(entry, "progress"), total),
    )


def _fuzzy(date: Any) -> str:
    """The ISO text of a date whose month and day may be unknown."""
    year, month, day = (at(date, part) for part in ("year", "month", "day"))
    return dates.parts(*(part if isinstance(part, int) else 0 for part in (year, month, day)))


def _export(value: dict[str, Any]) -> SiteList:
    entries = [_exported(row, one) for row, one in enumerate(dicts(value["lists"]), start=1)]
    return SiteList("export of an account", entries, text(value, "user", "display_name"), _TIMES)


def _exported(row: int, one: dict[str, Any]) -> Entry:
    status, kind = at(one, "status"), at(one, "series_type")
    return Entry(
        row,
        item=text(one, "series_id"),
        medium=_TYPES[kind] if kind in (0, 1) else text(kind).lower() or "anime",
        time=_day(one, "finished_on") or _day(one, "started_on") or text(one, "updated_at") or text(one, "created_at"),
        rating=rated(text(one, "score")),
        status=_STATUSES[status] if isinstance(status, int) and 0 <= status < len(_STATUSES) else text(status),
    )


def _day(one: dict[str, Any], name: str) -> str:
    """A date as ISO text; the export writes it as 20150430, or as text."""
    value = text(one, name)
    return dates.day(
        f"{value[:4]}-{value[4:6]}-{value[6:]}" if value.isdecimal() and len(value) == 8 else value.strip("0")
    )
