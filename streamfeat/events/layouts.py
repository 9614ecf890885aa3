"""Text files without a line of names: the layouts of known data sets, believed only where the values fit."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from streamfeat.errors import ConfigError
from streamfeat.events.column_values import is_time, number_of, share
from streamfeat.events.roles import Table, without_time
from streamfeat.events.source import Format

_NEARLY_ALL = 0.95
_MOST_LEVELS = 11  # of ratings: 0 to 10, or .5 to 5 in halves
_100K_TIMES = (874_724_710, 893_286_638)  # the first and the last rating of MovieLens-100K
_100K_USERS, _100K_ITEMS = 943, 1682

_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_WHOLE = re.compile(r"\d+")
_IMDB = re.compile(r"\d{7,8}")  # smaller IMDb ids have leading zeros
_AMAZON_USER = re.compile(r"A[A-Z0-9]{11,31}")
_AMAZON_ITEM = re.compile(r"B0[A-Z0-9]{8}|\d{9}[\dX]")
_PLACE_IDS = re.compile(r"[0-9a-zA-Z_-]+")


class Layout(NamedTuple):
    """A data set whose files have no names."""

    name: str  # for the user
    format: Format
    names: list[str]  # of its columns: the role, or the place of a column without one


class _Known(NamedTuple):
    name: str
    format: Format
    delimiter: str
    roles: tuple[str, ...]  # of the columns in order; "" for none
    fits: Callable[[Sequence[Sequence[str]]], bool]  # columns of sampled rows


def known_layout(delimiter: str, rows: Sequence[Sequence[str]]) -> Layout | None:
    """The known data set that `rows` are of; None if their values do not fit one."""
    for known in _KNOWN:
        whole = [row for row in rows if len(row) == len(known.roles)]
        if known.roles == _RATED and known.format != "csv":  # a row with anything but numbers is a bad row
            whole = [row for row in whole if all(map(_PLAIN_NUMBER.fullmatch, row))]
        usual = known.delimiter == delimiter and whole and len(whole) * 2 > len(rows)
        if usual and known.fits(list(zip(*whole, strict=True))):
            names = [role or f"#{place}" for place, role in enumerate(known.roles, 1)]
            return Layout(known.name, known.format, names)
    return None


def _all(column: Sequence[str], pattern: re.Pattern[str]) -> bool:
    return share(column, pattern.fullmatch) >= _NEARLY_ALL


def _rated(column: Sequence[str], least: float, most: float) -> bool:
    numbers = [number for number in map(number_of, column) if number is not None]
    good = [number for number in numbers if least <= number <= most and number * 2 % 1 == 0]
    return len(set(good)) <= _MOST_LEVELS and len(good) >= _NEARLY_ALL * len(column)


def _timed(column: Sequence[str]) -> bool:
    return share(column, lambda value: number_of(value) is not None and is_time(value)) >= _NEARLY_ALL


def _is_100k(columns: Sequence[Sequence[str]]) -> bool:
    # Many files have this form in another order of columns, so nothing but this data set is believed.
    def within(column: Sequence[str], least: int, most: int) -> bool:
        return all(_WHOLE.fullmatch(value) and least <= int(value) <= most for value in column)

    user, item, rating, time = columns
    return (
        within(user, 1, _100K_USERS)
        and within(item, 1, _100K_ITEMS)
        and _rated(rating, 0.5, 5)
        and within(time, *_100K_TIMES)
    )


def _is_movietweetings(columns: Sequence[Sequence[str]]) -> bool:
    user, item, rating, time = columns
    return _all(user, _WHOLE) and _all(item, _IMDB) and _rated(rating, 0, 10) and _timed(time)


def _is_movielens(columns: Sequence[Sequence[str]]) -> bool:
    user, item, rating, time = columns
    return _all(user, _WHOLE) and _all(item, _WHOLE) and _rated(rating, 0, 5) and _timed(time)


def _is_amazon(user: Sequence[str], item: Sequence[str], rating: Sequence[str], time: Sequence[str]) -> bool:
    return _all(user, _AMAZON_USER) and _all(item, _AMAZON_ITEM) and _rated(rating, 1, 5) and _timed(time)


def _are_checkins(columns: Sequence[Sequence[str]]) -> bool:
    def within(column: Sequence[str], most: float) -> bool:
        numbers = [number_of(value) for value in column]
        good = sum(number is not None and abs(number) <= most for number in numbers)
        return good >= _NEARLY_ALL * len(column) and any("." in value for value in column)

    user, time, latitude, longitude, item = columns
    dated = share(time, lambda value: number_of(value) is None and is_time(value)) >= _NEARLY_ALL
    return dated and within(latitude, 90) and within(longitude, 180) and _all(user, _WHOLE) and _all(item, _PLACE_IDS)


_RATED = ("user", "item", "rating", "timestamp")
_KNOWN = (
    _Known("MovieLens u.data", "movielens-100k", "\t", _RATED, _is_100k),
    _Known("MovieTweetings ratings.dat", "movietweetings", "::", _RATED, _is_movietweetings),
    _Known("MovieLens ratings.dat", "movielens-dat", "::", _RATED, _is_movielens),
    _Known("Amazon ratings", "csv", ",", _RATED, lambda columns: _is_amazon(*columns)),
    _Known(
        "Amazon ratings",
        "csv",
        ",",
        ("item", "user", "rating", "timestamp"),
        lambda columns: _is_amazon(columns[1], columns[0], columns[2], columns[3]),
    ),
    _Known("check-ins of Gowalla or Brightkite", "csv", "\t", ("user", "timestamp", "", "", "item"), _are_checkins),
)


def is_movielens_csv(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the values are those of MovieLens ratings.csv: whole numbers as ids, few levels of ratings, seconds."""
    columns = list(zip(*(row for row in rows if len(row) == len(_RATED)), strict=True))
    return not rows or (len(columns) == len(_RATED) and _is_movielens(columns))


def unnamed_columns(table: Table, first: str, constants: Mapping[str, str]) -> ConfigError:
    """The error for a file whose first line `first` is data and whose layout is not known: which options read it."""
    values = {name: table.values(name) for name in table.names}
    times = [name for name in table.names if values[name].surely_times]
    if not times:
        return ConfigError(
            f"{table.path}: no column for timestamp: its first line looks like data, not names ({first[:60]!r}); "
            f"{without_time(table)}"
        )
    ids = [name for name in table.names if name != times[0] and values[name].fits("item")]
    one_user = "user" in constants or len(ids) < 2
    roles = dict(zip(("item",) if one_user else ("user", "item"), ids, strict=False))
    given = ",".join(f"{role}={name}" for role, name in (roles | {"timestamp": times[0]}).items())
    constant = " --constant user=me" if one_user and "user" not in constants else ""
    if not one_user:
        constant = " (--constant user=me in place of a user, if all events are of one)"
    numeric = len(table.names) == len(_RATED) and all(values[name].is_numeric for name in table.names)
    like = {"\t": "u.data, --format movielens-100k", "::": "ratings.dat, --format movielens-dat"}.get(table.delimiter)
    movielens = f"; for a file like MovieLens {like}" if numeric and like else ""
    held = "; ".join(f"{name} holds {', '.join(dict.fromkeys(values[name].given[:3]))}" for name in table.names[:9])
    return ConfigError(
        f"{table.path}: no column for user: its first line looks like data, not names ({held[:300]}); say what each "
        f"column is by its place, for instance --columns {given}{constant}{movielens}"
    )


def numbered(num: int) -> list[str]:
    """The names of `num` columns without names: `#1`, `#2`, …"""
    return [f"#{place}" for place in range(1, num + 1)]
