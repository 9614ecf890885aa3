"""The sites whose lists are known: recognises a list by its content, and reads it as a table."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.lists import (
    anilist,
    goodreads,
    imdb,
    kitsu,
    lastfm,
    letterboxd,
    myanimelist,
    netflix,
    simkl,
    spotify,
    steam,
    trakt,
)
from streamfeat.events.lists.accounts import user_of_file
from streamfeat.events.lists.archives import read_archive
from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import Entry, SiteList
from streamfeat.events.source import REQUIRED_ROLES, Compression, Format, Source
from streamfeat.events.statuses import NUMBERS

_SAME_IDS = {"spotify", "lastfm"}  # both name a track by artist and title


_TOLD = 5  # so many lists of a site are told about one by one
_USER_COLUMNS = ("user", "userid", "username")  # without case, spaces and underscores


class Site(NamedTuple):
    """A site: its name for the user, and what reads its lists (None: the file is another one)."""

    name: str
    read: Callable[[Content], SiteList | None]


SITES: dict[Format, Site] = {
    "anilist": Site("AniList", anilist.read),
    "goodreads": Site("Goodreads", goodreads.read),
    "imdb": Site("IMDb", imdb.read),
    "kitsu": Site("Kitsu", kitsu.read),
    "lastfm": Site("Last.fm", lastfm.read),
    "letterboxd": Site("Letterboxd", letterboxd.read),
    "myanimelist": Site("MyAnimeList", myanimelist.read),
    "netflix": Site("Netflix", netflix.read),
    "simkl": Site("Simkl", simkl.read),
    "spotify": Site("Spotify", spotify.read),
    "steam": Site("Steam", steam.read),
    "trakt": Site("Trakt", trakt.read),
}


def recognise_list(path: str, compression: Compression, config: BuildConfig) -> Source | None:
    """The list at `path`; None if it is no list, or if `config` asks for another format or names its columns.

    Raises ConfigError if the file is not of the site that `config` asks for, DataError if it is damaged.
    """
    if config.format != "auto" and config.format not in SITES:
        return None
    content = Content.of(path, compression, config.encoding)
    named = any(config.columns.values())
    if named and content.kind == "text" and config.format == "auto":
        return None
    for form, site in SITES.items():
        if config.format in ("auto", form) and (found := _read(site, content)) is not None:
            if named:
                raise ConfigError(
                    f"{path}: is a list of {site.name}, whose fields have their roles; leave out --columns"
                )
            others = _others(content, form) if config.format == "auto" else []
            return _source(content, form, replace(found, left_out=(*found.left_out, *others)), config)
    if config.format != "auto":
        name = SITES[config.format].name  # type: ignore[index]
        raise ConfigError(f"{path}: --format {config.format} was given, but this is no list of {name}; leave it out")
    return None


def _others(content: Content, form: Format) -> list[str]:
    """Phrases about the lists of other sites in an archive of lists of the site `form`."""
    sites = {other: site for other, site in SITES.items() if other != form} if content.kind == "zip" else {}
    return [
        f"its lists of {site.name} are left out (--format {other} reads them)"
        for other, site in sites.items()
        if read_archive(content, site.read) is not None
    ]


def _read(site: Site, content: Content) -> SiteList | None:
    """The list, whose users are those of a column of users that someone added to a site's CSV."""
    found = site.read(content)
    if found is None and content.kind == "zip":
        return read_archive(content, site.read)
    column = next((name for name in content.header if re.sub(r"[\s_]", "", name.lower()) in _USER_COLUMNS), None)
    if found is None or column is None:
        return found
    users = {row.number: row.get(column) for row in content.rows()}
    entries = [replace(entry, user=entry.user or users.get(entry.row, "")) for entry in found.entries]
    return replace(found, entries=entries)


def _source(content: Content, form: Format, found: SiteList, config: BuildConfig) -> Source:
    user = found.account or user_of_file(content.path)
    roles = [role for role in (*REQUIRED_ROLES, "medium") if role not in config.constant]
    roles += [
        role
        for role in ("rating", "status", "completion", "title")
        if not {role} & {*config.columns, *config.constant} and any(getattr(entry, role) for entry in found.entries)
    ]
    media = Counter(config.constant.get("medium", entry.medium) for entry in found.entries)
    undated = sum(not entry.time for entry in found.entries)
    parts = [
        f"{SITES[form].name} {found.what}" + (", gzip" if content.compression == "gzip" else ""),
        ", ".join(f"{number:,} {medium}" for medium, number in sorted(media.items())) or "no entry",
        _users(found, user, config.constant),
        *([f"times: {found.times}"] if found.times else []),
        *(["newest first, so turned round"] if _is_newest_first(found.entries) else []),
        *([f"{undated:,} without a date"] if undated else []),
        *found.left_out,
    ]
    return Source(
        path=content.path,
        format=form,
        columns={role: role for role in roles},
        column_names=tuple(roles),
        time_unit="iso",
        compression=content.compression,
        encoding=content.encoding,
        note="; ".join(parts),
        list_user=user,
        list_media=tuple(sorted(media)),
        undated=config.undated,
        constants=config.constant,
        statuses={**(NUMBERS if form == "myanimelist" else {}), **config.status},  # exports of others have its numbers
    )


def check_sites(sources: Sequence[Source]) -> None:
    """Raises ConfigError if lists of two sites have a medium in common: an id of one site is another item on the other.

    Sites that name items by title (Letterboxd, Netflix, Spotify and Last.fm) would not meet each other's items either.
    """
    first: dict[str, Source] = {}
    for source in sources:
        for medium in source.list_media:
            other = first.setdefault(medium, source)
            if source.format != other.format and {source.format, other.format} != _SAME_IDS:
                raise ConfigError(
                    f"{source.path}: is a list of {SITES[source.format].name}, {other.path} one of "
                    f"{SITES[other.format].name}, and both hold {medium}: the same id is another item on each site; "
                    "give lists of one site, or build a dataset of each"
                )


def without_most_lists(sources: Sequence[Source]) -> tuple[list[Source], str]:
    """The sources that are told about one by one: all but the lists after the first few of a site. And a phrase about
    the others; empty if there are none."""
    told: list[Source] = []
    seen = Counter[str]()
    for source in sources:
        seen[source.format] += bool(source.list_user)
        if seen[source.format] <= _TOLD:
            told.append(source)
    more = {SITES[form].name: count - _TOLD for form, count in seen.items() if count > _TOLD}  # type: ignore[index]
    return told, ", ".join(f"{count:,} more lists of {name}" for name, count in more.items())


def _users(found: SiteList, user: str, constants: Mapping[str, str]) -> str:
    if "user" in constants:
        return f"user {constants['user']!r} (as given)"
    own = {entry.user for entry in found.entries if entry.user}
    if len(own) > 1:
        return f"{len(own):,} users"
    by = "its account" if found.account or own else "by the name of the file"
    return f"user {next(iter(own), user)!r} ({by})"


def read_list(source: Source) -> Iterator[pa.Table]:
    """The list as one table: a column of text for each role of the source, `row` (int64, the record's place in the
    file, from 1) and `undated` (whether it has the time of another).

    An entry without a date has the time of the user's first dated one and stands before it. Where a user has none,
    it has `source.undated`; without that its time stays missing. The dated entries of a list that stands newest first
    are turned round, because entries of one day are, too.
    """
    content = Content(source.path, source.compression, source.encoding)
    found = _read(SITES[source.format], content)
    entries = found.entries if found else ()
    users = [source.constants.get("user") or entry.user or source.list_user for entry in entries]
    dated: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for user, entry in zip(users, entries, strict=True):
        if (instant := _instant(entry.time)) is not None:
            dated[user].append((instant, entry.time))
    first = {user: min(times)[1] for user, times in dated.items()}
    order = [place for place, entry in enumerate(entries) if not entry.time]
    order += [place for place, entry in enumerate(entries) if entry.time][:: -1 if _is_newest_first(entries) else 1]
    columns: dict[str, list[str | None]] = {role: [] for role in source.columns}
    for place in order:
        entry, user = entries[place], users[place]
        given = {"user": user, "timestamp": entry.time or first.get(user, source.undated)}
        for role, values in columns.items():
            values.append((given[role] if role in given else getattr(entry, role)) or None)
    table = {role: pa.array(values, pa.string()) for role, values in columns.items()}
    table["row"] = pa.array([entries[place].row for place in order], pa.int64())
    table["undated"] = pa.array([not entries[place].time for place in order], pa.bool_())
    yield pa.table(table)


def _is_newest_first(entries: Sequence[Entry]) -> bool:
    """Whether the dated entries stand newest first, with more than one time and several entries of one: without these
    the order does not matter."""
    times = [instant for entry in entries if (instant := _instant(entry.time)) is not None]
    return 1 < len(set(times)) < len(times) and times == sorted(times, reverse=True)


def _instant(time: str) -> float | None:
    """Unix seconds of ISO text; None if it is not."""
    try:
        instant = datetime.fromisoformat(time)
    except ValueError:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
