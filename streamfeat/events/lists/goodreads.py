"""Goodreads: the CSV export of a library."""

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content, Row
from streamfeat.events.lists.entries import Entry, SiteList, rated
from streamfeat.events.lists.values import titled


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    if not content.has_columns("Book Id", "Title", "My Rating", "Exclusive Shelf", "Date Added"):
        return None
    return SiteList("library", [_entry(row) for row in content.rows()], times="date read, else date added")


def _entry(row: Row) -> Entry:
    return Entry(
        row.number,
        item=row.get("Book Id"),
        medium="book",
        time=dates.day(row.get("Date Read", "Date Added")),
        title=titled(row.get("Title"), row.get("Original Publication Year", "Year Published")),
        rating=rated(row.get("My Rating")),
        status=row.get("Exclusive Shelf"),
    )
