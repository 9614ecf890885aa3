"""The user of a list whose file does not name its account."""

import re
from pathlib import Path

_SITES = {
    "anilist", "goodreads", "imdb", "kitsu", "lastfm", "letterboxd", "mal", "myanimelist", "netflix", "simkl",
    "spotify", "steam", "trakt",
}  # fmt: skip
# Words of the names under which sites hand out everyone's files. They tell nobody apart.
_WORDS = {
    "account", "activity", "anime", "animelist", "animelists", "audio", "backup", "content", "data", "diary",
    "download", "downloads", "endsong", "entries", "export", "exports", "extended", "films", "games", "history",
    "interaction", "library", "likes", "list", "lists", "manga", "mangalist", "mangalists", "movies", "music",
    "my", "mydata", "netflixviewinghistory", "owned", "ownedgames", "podcast", "rated", "ratings", "report",
    "reviews", "scrobbles", "shows", "simklbackup", "streaming", "streaminghistory", "utc", "video", "viewing",
    "viewingactivity", "watched", "watchlist",
}  # fmt: skip
_COMMON = "|".join(sorted(_WORDS | _SITES, key=len, reverse=True))
_AROUND = re.compile(rf"^(?:(?:{_COMMON})\d*[\W_]+)+|(?:[\W_]+(?:(?:{_COMMON})\d*|\d+))+$", re.IGNORECASE)


def user_of_file(path: str) -> str:
    """The user in the name of the file or, if it has none (`ratings.csv`), of the nearest folder that has one. If there
    is none, the name of the file.

    A name names nobody if it consists of words of everyone's files and numbers. If it begins with a site, such words
    are left out at both ends: `kitsu-mika-anime.xml` and `letterboxd-mika-2024-05-01-utc` are mika.
    """
    file = Path(path).resolve()
    name = Path(file.name.removesuffix(".gz")).stem
    names = (name, *(folder.name for folder in file.parents))
    return next((user for part in names if (user := _user_in(part))), name)


def _user_in(name: str) -> str:
    """Empty if there is none."""
    words = re.findall(r"[^\W_]+", name)
    is_common = [word.lower().rstrip("0123456789") in _WORDS | _SITES for word in words]
    if not words or not any(is_common):
        return name
    if all(common or word.isdecimal() for word, common in zip(words, is_common, strict=True)):
        return ""
    if words[0].lower() not in _SITES:
        return name
    return _AROUND.sub("", name) or name
