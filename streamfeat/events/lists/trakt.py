"""Trakt: histories, ratings and watchlists, as CSV and as the JSON of its API and of backups.

An episode is an event of its show: the id and the title are those of the show in both forms.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from streamfeat.events.lists.content import Content, Row
from streamfeat.events.lists.entries import Entry, SiteList
from streamfeat.events.lists.values import at, dicts, text, titled

_TIMES = ("watched_at", "last_watched_at", "rated_at", "listed_at")
_PLANNED = "listed_at"
_MEDIA = {"movie": "film", "show": "series", "season": "series", "episode": "series"}
_PARTS = ("season", "episode")  # their ratings are not those of the show


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    if content.has_columns("type", "title", "trakt_id") and any(name in content.header for name in _TIMES):
        entries = [_row(row) for row in content.rows()]
        return _list(next(name for name in _TIMES if name in content.header), entries)
    first = content.first if content.kind == "json" and content.head.startswith(b"[") else None
    time = next((name for name in _TIMES if text(first, name)), None)
    if time is None or not any(isinstance(at(first, kind, "ids"), dict) for kind in ("movie", "show")):
        return None
    entries = [entry for row, one in enumerate(dicts(content.json), start=1) for entry in _object(row, one)]
    return _list(time, entries)


def _list(time: str, entries: list[Entry]) -> SiteList:
    what = {"rated_at": "ratings", _PLANNED: "watchlist"}.get(time, "history")
    kept = [entry for entry in entries if entry.medium]
    left = Counter(bool(entry.medium) for entry in entries)[False]
    note = (f"{left:,} ratings of seasons and episodes left out: they are not their show's",) if left else ()
    return SiteList(what, kept, times=time, left_out=note)


def _medium(kind: str, *, rated: bool) -> str:
    """Empty for what is left out."""
    return "" if rated and kind in _PARTS else _MEDIA.get(kind, kind or "film")


def _row(row: Row) -> Entry:
    planned = not row.get(*_TIMES[:3]) and bool(row.get(_PLANNED))
    return Entry(
        row.number,
        item=row.get("trakt_id"),
        medium=_medium(row.get("type"), rated=bool(row.get("rated_at"))),
        time=row.get(*_TIMES),
        title=titled(row.get("title"), row.get("year")),
        rating=row.get("rating"),
        status="planned" if planned else "completed",
    )


def _object(row: int, one: dict[str, Any]) -> Iterator[Entry]:
    """The entries of one object: the plays of a show with its seasons are one each, all others have one."""
    kind = text(one, "type") or ("movie" if "movie" in one else "show")
    media = at(one, "movie") or at(one, "show")
    planned = _PLANNED in one
    times = [text(one, name) for name in _TIMES if text(one, name)][:1]
    plays = [episode for season in dicts(at(one, "seasons")) for episode in dicts(at(season, "episodes"))]
    times = [text(play, "last_watched_at") for play in plays] or times or [""]
    for time in times:
        yield Entry(
            row,
            item=text(media, "ids", "trakt"),
            medium=_medium(kind, rated="rated_at" in one),
            time=time,
            title=titled(text(media, "title"), text(media, "year")),
            rating=text(one, "rating"),
            status="planned" if planned else "completed",
        )
