"""Netflix: the viewing history that an account's page hands out, and the viewing activity of its full export.

Titles read "Series: Season 2: Episode". A play of an episode is an event of its series.
"""

import re

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content, Row
from streamfeat.events.lists.entries import Entry, SiteList

_SEASON = (
    r"Season|Series|Part|Volume|Vol\.|Chapter|Book|Collection|Limited Series|Miniseries|Staffel|Teil|Kapitel|Buch|"
    r"Miniserie|Saison|Partie|Chapitre|Livre|Temporada|Parte|Capítulo|Libro|Livro|Stagione|Capitolo|Seizoen|Deel|Sezon|"
    r"Część|Säsong|Sesong|Sæson|Kausi|Évad|Sezonul|Сезон|Часть"
)
_EPISODE = re.compile(rf"(?P<series>.+?): (?:(?:{_SEASON})(?!\w)|シーズン|시즌|第)[^:]*: .+")


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged or its dates can be read in two
    ways."""
    if content.has_columns("Profile Name", "Start Time", "Title", "Supplemental Video Type"):
        rows = content.rows()
        kept = [row for row in rows if not row.get("Supplemental Video Type")]
        left = len(rows) - len(kept)
        note = (f"{left:,} trailers and the like left out",) if left else ()
        entries = [_entry(row, row.get("Start Time"), row.get("Profile Name")) for row in kept]
        return SiteList("viewing activity", entries, times="start of the play, UTC", left_out=note)
    if content.header == ["Title", "Date"]:
        rows = content.rows()
        days = dates.days_of(content.path, [row.get("Date") for row in rows])
        entries = [_entry(row, day, "") for row, day in zip(rows, days, strict=True)]
        return SiteList("viewing history", entries, times="day of the play")
    return None


def _entry(row: Row, time: str, user: str) -> Entry:
    title = row.get("Title")
    match = _EPISODE.fullmatch(title)
    item = match["series"] if match else title
    medium = "series" if match else "film"
    return Entry(row.number, item=item, medium=medium, time=time, title=item, status="completed", user=user)
