"""Letterboxd: its CSV files, one by one or as the archive that it hands out.

The addresses (Letterboxd URI) stand for films in some files and for entries of the diary in others, so a film is named
by its title and year.
"""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content, Row
from streamfeat.events.lists.entries import Entry, SiteList
from streamfeat.events.lists.values import titled

_COLUMNS = ("Date", "Name", "Year", "Letterboxd URI")
_PLANNED = "watchlist"


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    if content.kind == "zip":
        return _archive(content)
    if not content.has_columns(*_COLUMNS):
        return None
    if content.has_columns("Watched Date"):
        what, times = "diary", "date of watching, else of the entry"
    elif content.has_columns("Rating"):
        what, times = "ratings", "date of the rating"
    else:  # watched films and the watchlist have the same columns
        what = _PLANNED if _PLANNED in Path(content.path).name.lower() else "watched films"
        times = "date of the entry"
    entries = [_entry(row, planned=what == _PLANNED) for row in content.rows()]
    return SiteList(what, entries, times=times)


def _archive(content: Content) -> SiteList | None:
    """The diary, then the watched and rated films that are not in it, then the watchlist."""
    profile = next((name for name in content.members if PurePosixPath(name).name == "profile.csv"), None)
    if profile is None or not content.members[profile].has_columns("Username"):
        return None
    folder = PurePosixPath(profile).parent

    def rows(name: str) -> list[Row]:
        member = content.members.get(str(folder / name))
        return member.rows() if member is not None and member.has_columns(*_COLUMNS) else []

    diary = [_entry(row) for row in rows("diary.csv")]
    ratings = {entry.item: entry for entry in map(_entry, rows("ratings.csv"))}
    in_diary = {entry.item for entry in diary}
    films: dict[str, Entry] = {}
    for entry in [*map(_entry, rows("watched.csv")), *ratings.values()]:
        if entry.item not in in_diary:
            films.setdefault(entry.item, replace(entry, rating=_rating(ratings, entry.item)))
    entries = [*_with_ratings(diary, ratings), *films.values()]
    entries += [_entry(row, planned=True) for row in rows("watchlist.csv")]
    numbered = [replace(entry, row=number) for number, entry in enumerate(entries, start=1)]
    account = next((row.get("Username") for row in content.members[profile].rows()), "")
    return SiteList("archive", numbered, account, "date of watching, else of the entry")


def _with_ratings(diary: list[Entry], ratings: dict[str, Entry]) -> list[Entry]:
    """The diary, in which the last entry of a film has the film's rating if no entry of it has one."""
    rated = {entry.item for entry in diary if entry.rating}
    last = {entry.item: place for place, entry in enumerate(diary)}
    return [
        replace(entry, rating=_rating(ratings, entry.item))
        if last[entry.item] == place and entry.item not in rated
        else entry
        for place, entry in enumerate(diary)
    ]


def _rating(ratings: dict[str, Entry], film: str) -> str:
    return ratings[film].rating if film in ratings else ""


def _entry(row: Row, *, planned: bool = False) -> Entry:
    film = titled(row.get("Name"), row.get("Year"))
    return Entry(
        row.number,
        item=film,
        medium="film",
        time=dates.day(row.get("Watched Date", "Date")),
        title=film,
        rating=row.get("Rating"),
        status="planned" if planned else "completed",
    )
