"""Spotify: the streaming history of the account data and the extended one, as JSON and as a table made of it.

A track is named by artist and title: one recording has many ids, and the history of the account data has none.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import Entry, SiteList
from streamfeat.events.lists.values import dicts, text

_ACCOUNT = ("endTime", "msPlayed")
_EXTENDED = ("ts", "ms_played", "master_metadata_track_name")


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    for keys, what in ((_ACCOUNT, "streaming history"), (_EXTENDED, "extended streaming history")):
        if content.has_columns(*keys):
            return _list(what, ((row.number, row.fields) for row in content.rows()))
        if isinstance(content.first, dict) and set(keys) <= content.first.keys():
            return _list(what, enumerate(dicts(content.json), start=1))
    return None


def _list(what: str, records: Iterable[tuple[int, Mapping[str, Any]]]) -> SiteList:
    entries = [_entry(row, dict(record)) for row, record in records]
    kept = [entry for entry in entries if entry.item]
    left = len(entries) - len(kept)
    notes = ["no completions: it has no lengths of tracks"]
    notes += [f"{left:,} plays without a name left out"] if left else []
    return SiteList(what, kept, times="end of the play, UTC", left_out=tuple(notes))


def _entry(row: int, record: dict[str, Any]) -> Entry:
    """Without a medium and an item if nothing that was played has a name."""

    def get(*names: str) -> str:
        return next((found for name in names if (found := text(record, name))), "")

    artist = get("artistName", "master_metadata_album_artist_name")
    track = get("trackName", "master_metadata_track_name")
    show, book = get("podcastName", "episode_show_name"), get("audiobook_title")
    medium, item = next(
        ((medium, name) for medium, name in (("podcast", show), ("audiobook", book)) if name),
        ("track", track_name(artist, track)),
    )
    user = get("username")
    return Entry(row, item=item, medium=medium, time=get("endTime", "ts"), title=item, status="completed", user=user)


def track_name(artist: str, track: str) -> str:
    """The id and title of a track; empty if one of both is missing."""
    return f"{artist} – {track}" if artist and track else ""
