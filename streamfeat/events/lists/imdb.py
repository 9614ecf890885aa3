"""IMDb: the CSV exports of ratings, of the watchlist and of other lists."""

from dataclasses import replace

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content, Row
from streamfeat.events.lists.entries import Entry, SiteList
from streamfeat.events.lists.values import titled

# By the title type, without case and spaces. What is missing is a film: shorts, videos, television films.
_MEDIA = {
    "tvseries": "series",
    "tvminiseries": "series",
    "tvshort": "series",
    "tvepisode": "episode",
    "podcastseries": "podcast",
    "podcastepisode": "podcast",
    "videogame": "game",
    "musicvideo": "music_video",
}


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    if not content.has_columns("Const", "Title", "Title Type"):
        return None
    if content.has_columns("Your Rating", "Date Rated") and not content.has_columns("Position"):
        return SiteList("ratings", [_entry(row) for row in content.rows()], times="date of the rating")
    entries = [_listed(row) for row in content.rows()]
    return SiteList(
        "list, read as planned where it has no rating", entries, times="date of the rating, else of the entry"
    )


def _entry(row: Row) -> Entry:
    return Entry(
        row.number,
        item=row.get("Const"),
        medium=_MEDIA.get(row.get("Title Type").lower().replace(" ", ""), "film"),
        time=dates.day(row.get("Date Rated", "Created")),
        title=titled(row.get("Title"), row.get("Year")),
        rating=row.get("Your Rating"),
        status="completed",
    )


def _listed(row: Row) -> Entry:
    entry = _entry(row)
    return entry if entry.rating else replace(entry, status="planned")
