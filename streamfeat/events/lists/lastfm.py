"""Last.fm: scrobbles as CSV, in the two forms that the usual exporters write. Tracks are named as Spotify's are."""

import re
from datetime import datetime

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content, Row
from streamfeat.events.lists.entries import Entry, SiteList
from streamfeat.events.lists.spotify import track_name

_WITHOUT_HEADER = ["artist", "album", "track", "date"]
_DATE = re.compile(r"\d{1,2} [A-Z][a-z]{2} \d{4},? \d{2}:\d{2}")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in every locale


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    if content.has_columns("uts", "artist", "track"):
        rows = content.rows()
    elif len(content.header) == len(_WITHOUT_HEADER) and _DATE.fullmatch(content.header[3]):
        rows = content.rows(_WITHOUT_HEADER)
    else:
        return None
    entries = [_entry(row) for row in rows]
    kept = [entry for entry in entries if entry.time]
    left = len(entries) - len(kept)
    note = (f"{left:,} without a date left out: what is playing now",) if left else ()
    return SiteList("scrobbles", kept, times="start of the play, UTC", left_out=note)


def _entry(row: Row) -> Entry:
    uts, track = row.get("uts"), track_name(row.get("artist"), row.get("track"))
    time = dates.from_unix(int(uts)) if uts.isdecimal() else _time(row.get("utc_time", "date"))
    return Entry(row.number, item=track, medium="track", time=time, title=track, status="completed")


def _time(text: str) -> str:
    """The ISO text of `20 Jul 2017, 02:42`; anything else as it is."""
    if not _DATE.fullmatch(text):
        return text
    day, month, year, clock = text.replace(",", "").split()
    try:
        return (
            datetime.fromisoformat(f"{year}-{_MONTHS.index(month) + 1:02d}-{int(day):02d}T{clock}:00").isoformat() + "Z"
        )
    except ValueError:
        return text
