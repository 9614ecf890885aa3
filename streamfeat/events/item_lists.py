"""Reads lists of items: one raw id a line, or the item column of a table or of an event file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError, StorageError
from streamfeat.events.parquet import parquet_columns, read_columns
from streamfeat.events.role_names import NAMES, plain
from streamfeat.events.sample import kind_of, split_line, zip_of_no_list
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text
from streamfeat.events.user_histories import read_histories

MAX_LIST_BYTES = 1 << 28  # of decompressed text: the list is held in memory
_DELIMITERS = (",", "\t", ";", "|")


def read_item_list(path: str | Path, media: Sequence[str]) -> list[tuple[str, str]]:
    """(medium, raw id) of each distinct item in the file, in its order. The medium is "" if the file names none.

    The file is one of these: Parquet or text (also gzip) with a column of items and maybe one of media, which have
    names as in event files; an event file without a header; text with one item a line, `id` or `id,medium` with a
    medium of `media`. Raises ConfigError if a table has no column of items, DataError if the file is damaged or has no
    item.
    """
    path = str(path)
    kind = kind_of(path)
    if kind == "parquet":
        found = _parquet_items(path)
    elif kind == "zip":
        raise zip_of_no_list(path)
    else:
        lines = _lines(path, gzipped=kind == "gzip")
        found = _text_items(path, lines, media)
    items = list(dict.fromkeys(found))
    if not items:
        raise DataError(f"{path}: has no item; write one raw id a line, or a table with a column called item")
    return items


def _parquet_items(path: str) -> Iterator[tuple[str, str]]:
    names = parquet_columns(path)
    item, medium = column_of(names, "item"), column_of(names, "medium")
    if item is None:
        raise ConfigError(
            f"{path}: no column for item; found {', '.join(names) or 'none'}; rename the column of ids to item"
        )
    table = read_columns(path, [names[place] for place in (item, medium) if place is not None], "item")
    ids = table[names[item]].to_pylist()
    labels = [""] * len(ids) if medium is None else table[names[medium]].to_pylist()
    for raw_id, label in zip(ids, labels, strict=True):
        if raw_id is not None:
            yield (label or "").strip().lower(), raw_id


def _text_items(path: str, lines: list[str], media: Sequence[str]) -> Iterator[tuple[str, str]]:
    headers = {delimiter: split_line(lines[0], delimiter, '"') for delimiter in _DELIMITERS if lines}
    headers = {delimiter: names for delimiter, names in headers.items() if _names_items(names, media)}
    if headers:
        delimiter, names = max(headers.items(), key=lambda header: len(header[1]))
        yield from _table_items(path, lines[1:], delimiter, names)
        return
    if events := _events(path):
        yield from events
        return
    for line in lines:
        raw_id, _, medium = line.rpartition(",")
        medium = medium.strip().lower()
        yield (medium, raw_id.strip()) if raw_id and medium in media else ("", line.strip())


def _names_items(names: Sequence[str], media: Sequence[str]) -> bool:
    """Whether the first line has the name of a column of items. In `5,anime` the second field is a medium."""
    item = column_of(names, "item")
    return item is not None and names[item].strip().lower() not in media


def _table_items(path: str, lines: list[str], delimiter: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    item, medium = column_of(names, "item") or 0, column_of(names, "medium")
    for number, line in enumerate(lines, start=2):
        row = split_line(line, delimiter, '"')
        if len(row) <= max(item, medium or 0):
            raise DataError(
                f"{path}: line {number} has only {len(row)} fields, so the item is missing; got {line[:60]!r}"
            )
        if row[item].strip():
            yield "" if medium is None else row[medium].strip().lower(), row[item]


def _events(path: str) -> list[tuple[str, str]]:
    """The items of an event file without a header; [] if the file is not an event file."""
    try:
        return read_histories(path, BuildConfig(), medium="").items
    except ConfigError:
        return []


def column_of(names: Sequence[str], role: str) -> int | None:
    """The place of the column for a role; None if there is none. RecBole headers have types, as in item_id:token."""
    known = [plain(name.partition(":")[0]) for name in names]
    return next((known.index(name) for name in NAMES[role] if name in known), None)


def _lines(path: str, *, gzipped: bool) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        with open_text(path, "gzip" if gzipped else "none") as stream:
            data = stream.read(MAX_LIST_BYTES + 1)
        if len(data) > MAX_LIST_BYTES:
            raise DataError(f"{path}: is longer than {MAX_LIST_BYTES:,} bytes; give a shorter list of items")
        text = data.removeprefix(BOM).decode("utf-8")
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); convert it") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); grant access") from None
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
