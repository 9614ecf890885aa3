"""Titles of items, from the file that known data sets have next to their events."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from streamfeat.errors import DataError, StorageError
from streamfeat.events.role_names import NAMES, plain
from streamfeat.events.source import Source

_TITLES = (*NAMES["title"], "name")


def read_titles(source: Source) -> dict[str, str]:
    """Raw item id → title; {} if there is no such file next to the events.

    MovieLens: u.item, movies.dat, movies.csv. MovieTweetings: movies_100K.dat next to ratings_100K.dat. RecBole:
    NAME.item next to NAME.inter. Raises StorageError if the file cannot be read, DataError if movies.csv is not CSV.
    """
    events = Path(source.path.removesuffix(".gz"))
    lines: Iterator[str]
    if source.format == "movielens-100k":
        return dict(_pairs(line.split("|") for line in _lines(events.with_name("u.item"))))
    if source.format in ("movielens-dat", "movietweetings"):
        name = re.sub("ratings", "movies", events.name)
        lines = _lines(events.with_name(name)) if name != events.name else iter(())
        return dict(_pairs(line.split("::") for line in lines))
    if source.format == "movielens-csv":
        path = events.with_name("movies.csv")
        rows = csv.reader(_lines(path))
        try:
            return dict(_named_pairs(next(rows, []), rows))
        except csv.Error as error:
            raise DataError(f"{path}: the titles are not CSV ({error}); correct the file or move it away") from None
    if source.format == "recbole":
        lines = _lines(events.with_suffix(".item"))
        names = [field.rpartition(":")[0] for field in next(lines, "").split("\t")]
        return dict(_named_pairs(names, (line.split("\t") for line in lines)))
    return {}


def _lines(path: Path) -> Iterator[str]:
    """Lines without their line ends, decoded as UTF-8 or, if that fails, Latin-1 (older MovieLens). Yields nothing if
    there is no such file."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: the titles are not an ordinary file; move it away")
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"{path}: the titles cannot be read ({error.strerror}); grant access or move it away"
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for line in text.split("\n"):
        if line.strip():
            yield line.removesuffix("\r")


def _pairs(rows: Iterable[list[str]]) -> Iterator[tuple[str, str]]:
    """(id, title) of the rows that have both as first columns."""
    for row in rows:
        if len(row) >= 2 and row[0] and row[1]:
            yield row[0], row[1]


def _named_pairs(header: Sequence[str], rows: Iterable[list[str]]) -> Iterator[tuple[str, str]]:
    """(id, title) of the rows, from the columns that `header` calls so; nothing if it does not name both."""
    names = [plain(name) for name in header]
    item = next((names.index(name) for name in NAMES["item"] if name in names), None)
    title = next((place for name in _TITLES if name in names and (place := names.index(name)) != item), None)
    if item is not None and title is not None:
        yield from _pairs([row[item], row[title]] for row in rows if len(row) == len(names))
