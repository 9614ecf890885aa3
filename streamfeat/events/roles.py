"""Finds the column for each role: by its name, or by `--columns`."""

import difflib
import re
from collections.abc import Mapping, Sequence

from streamfeat.errors import ConfigError
from streamfeat.events.source import REQUIRED_ROLES, ROLES

MAX_COLUMNS = 4096  # in a file: the search for similar names among more columns takes minutes

# Names in lower case, without all characters but letters and digits. The first one that the file has counts.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "user": (
        "user",
        "userid",
        "uid",
        "username",
        "useridx",
        "member",
        "memberid",
        "profileid",
        "customerid",
        "visitorid",
        "reviewerid",
    ),
    "item": (
        "item",
        "itemid",
        "iid",
        "movieid",
        "movie",
        "animeid",
        "mangaid",
        "mediaid",
        "bookid",
        "gameid",
        "trackid",
        "songid",
        "artistid",
        "showid",
        "videoid",
        "productid",
        "asin",
        "isbn",
        "contentid",
        "articleid",
        "imdbid",
    ),
    "timestamp": (
        "timestamp",
        "time",
        "ts",
        "datetime",
        "date",
        "unixseconds",
        "unixtime",
        "unixtimestamp",
        "unixreviewtime",
        "eventtime",
        "eventtimestamp",
        "createdat",
        "updatedat",
        "lastupdated",
        "watchedat",
    ),
    "medium": ("medium", "media", "mediatype"),
    "rating": ("rating", "score", "stars", "userrating"),
    "status": ("status", "watchstatus", "watchingstatus"),
    "completion": ("completion", "progress"),
    "total": (),  # found by its values, beside a completion: see completions.py
    "title": ("title", "itemtitle", "movietitle", "itemname"),
}


def check_roles(overrides: Mapping[str, str]) -> None:
    """Raises ConfigError if `--columns` names an unknown role."""
    for role in overrides:
        if role not in ROLES:
            close = difflib.get_close_matches(role, ROLES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"roles: {', '.join(ROLES)}"
            raise ConfigError(f"columns: unknown role {role!r}; {hint}; a role is given as role=column")


def find_roles(path: str, names: Sequence[str], overrides: Mapping[str, str], *, in_first_line: bool) -> dict[str, str]:
    """Role → column of `names`. An override with an empty column means that the role has no column. `in_first_line`
    says that `names` come from the file's first line.

    Raises ConfigError, with the columns found and the closest one, if a required role has no column, an override names
    a missing column, a name occurs twice or one column has two roles.
    """
    check_roles(overrides)
    if len(names) > MAX_COLUMNS:
        raise ConfigError(
            f"{path}: has {len(names):,} columns, more than {MAX_COLUMNS:,}; write a file with only the needed columns"
        )
    columns = {}
    taken = {column for column in overrides.values() if column}
    by_plain_name: dict[str, str] = {}
    for name in names:
        if name not in taken:
            by_plain_name.setdefault(_plain(name), name)
    for role in ROLES:
        if role in overrides:
            if overrides[role]:
                columns[role] = _named(path, names, role, overrides[role])
            continue
        found = next((by_plain_name[plain] for plain in SYNONYMS[role] if plain in by_plain_name), None)
        if found is not None:
            columns[role] = found
    for role in REQUIRED_ROLES:
        if role not in columns:
            raise ConfigError(_no_column(path, names, role, in_first_line=in_first_line))
    _check_distinct(path, names, columns)
    return columns


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _named(path: str, names: Sequence[str], role: str, column: str) -> str:
    if column in names:
        return column
    close = difflib.get_close_matches(column, list(names), n=1, cutoff=0.4)
    hint = f"; the closest is {close[0]!r}" if close else ""
    raise ConfigError(f"{path}: no column {column!r} for {role}; found {_listed(names)}{hint}")


def _no_column(path: str, names: Sequence[str], role: str, *, in_first_line: bool) -> str:
    if not names:
        return f"{path}: no column for {role}: the file has no columns at all; write it again with its columns"
    plain = {_plain(name): name for name in names}
    best = ("", 0.6)
    for candidate in SYNONYMS[role]:
        for close in difflib.get_close_matches(candidate, list(plain), n=1, cutoff=best[1]):
            best = (plain[close], difflib.SequenceMatcher(None, candidate, close).ratio())
    named = f"--columns {role}={best[0] or 'NAME'}"
    closest = f"the closest is {best[0]!r}; " if best[0] else ""
    headerless = in_first_line and all(re.fullmatch(r"[\d.:+\- TZ]*", name) for name in names)
    remedy = (
        "its first line looks like data: add a line that names the columns" if headerless else f"name it with {named}"
    )
    return f"{path}: no column for {role}; found {_listed(names)}; {closest}{remedy}"


def _check_distinct(path: str, names: Sequence[str], columns: Mapping[str, str]) -> None:
    role_of: dict[str, str] = {}
    for role, column in columns.items():
        if list(names).count(column) > 1:
            raise ConfigError(f"{path}: two columns are called {column!r}; rename one of them")
        if column in role_of:
            raise ConfigError(
                f"{path}: column {column!r} is given as {role_of[column]} and as {role}; name another for one"
            )
        role_of[column] = role


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name if len(name) <= 40 else name[:39] + "…") for name in names[:30])
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")
