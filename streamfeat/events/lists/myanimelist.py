"""MyAnimeList: the XML export of an anime or a manga list. Kitsu and others export the same form."""

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import Entry, SiteList, rated, share
from streamfeat.events.lists.xml_records import Record

_MEDIA = ("anime", "manga")


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged."""
    if content.kind != "xml" or b"<myanimelist" not in content.head:
        return None
    records = content.xml
    account = next((record.get("user_name") for record in records if record.name == "myinfo"), "")
    listed = [record for record in records if record.name in _MEDIA]
    entries = [_entry(row, record) for row, record in enumerate(listed, start=1)]
    media = [medium for medium in _MEDIA if any(entry.medium == medium for entry in entries)]
    return SiteList(f"{' and '.join(media) or 'empty'} list", entries, account, "finish date, else start date")


def _entry(row: int, record: Record) -> Entry:
    get = record.get
    if record.name == "anime":
        done, total = get("my_watched_episodes"), get("series_episodes")
    else:
        done, total = get("my_read_chapters"), get("manga_chapters", "series_chapters")
    return Entry(
        row,
        item=get("series_animedb_id", "manga_mangadb_id", "series_mangadb_id"),
        medium=record.name,
        time=dates.day(get("my_finish_date")) or dates.day(get("my_start_date")),
        title=get("series_title", "manga_title"),
        rating=rated(get("my_score")),
        status=get("my_status"),
        completion=share(done, total),
    )
