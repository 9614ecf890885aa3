"""The user of a list whose file does not name its account."""

import re
from pathlib import Path

# Names under which sites hand out everyone's files, without digits and delimiters. They tell nobody apart.
_GENERIC = {
    "animelist", "backup", "data", "diary", "download", "downloads", "endsong", "entries", "export", "films", "games",
    "goodreadslibraryexport", "history", "input", "library", "likes", "list", "lists", "mangalist", "mydata",
    "netflixviewinghistory", "ownedgames", "ratings", "reviews", "simklbackup", "spotify", "spotifyaccountdata",
    "spotifyextendedstreaminghistory", "streaminghistory", "streaminghistoryaudio", "streaminghistorymusic",
    "streaminghistorypodcast", "streaminghistoryvideo", "viewingactivity", "watched", "watchedhistory", "watchedmovies",
    "watchedshows", "watchlist", "contentinteraction", "ratedmovies", "ratedshows",
}  # fmt: skip


def user_of_file(path: str) -> str:
    """The name of the file without its endings or, where that is a name of everyone's files (ratings.csv), of the
    nearest folder with a name of its own. If there is none, the file's."""
    file = Path(path).resolve()
    name = file.name.removesuffix("".join(file.suffixes[-2:])) or file.name
    own = (part for part in (name, *(folder.name for folder in file.parents)) if part and not _is_generic(part))
    return next(own, name)


def _is_generic(name: str) -> bool:
    return re.sub(r"[^a-z]", "", name.lower()) in _GENERIC
