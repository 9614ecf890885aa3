"""Steam: the games of an account, as the API gives them (GetOwnedGames, GetRecentlyPlayedGames)."""

from typing import Any

from streamfeat.events.lists import dates
from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import Entry, SiteList
from streamfeat.events.lists.values import at, dicts, text


def read(content: Content) -> SiteList | None:
    """The list; None if the file is another one. Raises DataError if it is damaged.

    How much of a game playtime is, no one knows, so completions are missing. A game that was never played is planned.
    """
    value = content.first if content.kind == "json" and content.head.startswith(b"{") else None
    games = dicts(at(at(value, "response") or value, "games"))
    if not games or not {"appid", "playtime_forever"} <= games[0].keys():
        return None
    entries = [_entry(row, one) for row, one in enumerate(games, start=1)]
    note = ("no completions: playtime is no share",)
    return SiteList("games", entries, text(value, "response", "steamid"), "last played", note)


def _entry(row: int, one: dict[str, Any]) -> Entry:
    played = at(one, "playtime_forever")
    return Entry(
        row,
        item=text(one, "appid"),
        medium="game",
        time=dates.from_unix(at(one, "rtime_last_played")),
        title=text(one, "name"),
        status="completed" if played else "planned",
    )
