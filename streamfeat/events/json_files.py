"""Recognises JSON Lines and JSON arrays of objects: their fields, nested ones with dotted names, and their roles."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamfeat.config import AUTO_ENCODING, BuildConfig
from streamfeat.errors import ConfigError, DataError, StorageError
from streamfeat.events.encodings import encoding_of
from streamfeat.events.json_elements import elements_of, without_opening
from streamfeat.events.roles import Table, find_roles
from streamfeat.events.sample import SAMPLE_BYTES, SAMPLE_LINES
from streamfeat.events.source import ID_ROLES, Compression, Source
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text
from streamfeat.events.times import joined_times, recognise_times

JsonFormat = Literal["json", "json-lines"]
JSON_FORMATS: tuple[JsonFormat, ...] = ("json", "json-lines")

_NAMES: dict[JsonFormat, str] = {"json": "JSON objects", "json-lines": "JSON Lines"}
_START = re.compile(rb"\[\s*[\[{\]\"\d-]|\{\s*[\"}]")  # a header of brackets, such as [user],[item], is none
_BY_COLUMN = re.compile(rb'\{\s*"[^"\\]*"\s*:\s*\{\s*"0"\s*:')  # {"user": {"0": …
_SPLIT = re.compile(rb'\{\s*"(columns|index)"\s*:\s*\[.*"data"\s*:\s*\[\s*\[', re.DOTALL)  # of pandas, too
_PYTHON = re.compile(rb"\{\s*u?'")
_MAX_DEPTH = 8  # of nested fields
_FEW_LINES = 50
_LARGEST_EXACT = 2**53  # from here on, floats skip integers


@dataclass(frozen=True)
class JsonSample:
    """The beginning of a JSON file."""

    form: JsonFormat
    encoding: str  # "" for UTF-8
    pointers: dict[str, str]  # dotted name of each field → its JSON pointer (RFC 6901), in order of appearance
    rows: list[dict[str, Any]]  # values by dotted name; none of them is an object


def recognise_json(path: str, compression: Compression, config: BuildConfig) -> Source | None:
    """The JSON file at `path`; None if the file is not JSON or `config` asks for another format.

    Raises ConfigError as `formats.recognise` does, and for Python dictionaries and a single object.
    """
    if config.format not in ("auto", *JSON_FORMATS):
        return None
    sample = _sample(path, compression, config.encoding)
    if sample is None or config.format not in ("auto", sample.form):
        if config.format == "auto":
            return None
        is_now = f"it is {_NAMES[sample.form]} ({sample.form})" if sample else "it is no JSON"
        raise ConfigError(f"{path}: --format {config.format} was given, but {is_now}; leave out --format")
    names = list(sample.pointers)
    table = Table(path, names, lambda name: _texts(sample, name, missing=[""]))
    roles = find_roles(table, config.columns, config.constant)
    columns = roles.columns
    for role, column in columns.items():
        lists = [row[column] for row in sample.rows if isinstance(row.get(column), list)]
        if len(lists) * 2 > len(sample.rows):
            raise ConfigError(
                f"{path}: the field {column!r} holds lists, which cannot be read as {role}; "
                f"name another with --columns {role}=NAME"
            )
    texts = [_texts(sample, column, missing=[""]) for column in (columns["timestamp"], *roles.joined)]
    unit, times = recognise_times(path, columns["timestamp"], joined_times(texts), config.time_unit)
    parts = filter(None, [_NAMES[sample.form], "gzip" if compression == "gzip" else "", sample.encoding])
    return Source(
        path=path,
        format=sample.form,
        columns=columns,
        joined=roles.joined,
        constants=config.constant,
        column_names=tuple(names),
        time_unit=unit,
        compression=compression,
        encoding=sample.encoding,
        json_pointers=tuple(sample.pointers.values()),
        float_ids=tuple(role for role in ID_ROLES if _are_floats(path, role, columns.get(role, ""), sample.rows)),
        note=f"{', '.join(parts)}; {roles.note}; {times}",
    )


def json_column(source: Source, column: str) -> list[str]:
    """Sampled values of a field as text, of the same rows for every field; empty where there is none."""
    sample = _sample(source.path, source.compression, source.encoding or AUTO_ENCODING)
    return [] if sample is None else _texts(sample, column, missing=[""])


def _texts(sample: JsonSample, column: str, missing: Sequence[str] = ()) -> list[str]:
    texts: list[str] = []
    for row in sample.rows:
        value = row.get(column)
        texts += missing if value is None else [value if isinstance(value, str) else json.dumps(value)]
    return texts


def _are_floats(path: str, role: str, column: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether ids are whole numbers written as 7.0. Raises ConfigError if they are too large to be exact."""
    values = [row[column] for row in rows if isinstance(row.get(column), float)]
    if any(abs(value) >= _LARGEST_EXACT for value in values):
        raise ConfigError(
            f"{path}: the field {column!r} holds numbers with a fraction of 2^53 and more as {role}, such as "
            f"{values[0]!r}: as floats they have lost digits; write the ids as integers or text"
        )
    return bool(values) and all(value.is_integer() for value in values)


def _sample(path: str, compression: Compression, encoding: str) -> JsonSample | None:
    """The rows at the beginning of a file; None if it is no JSON."""
    try:
        with open_text(path, compression) as stream:
            found = encoding_of(stream.read(4), encoding)
        with open_text(path, compression, found) as stream:
            head = stream.read(SAMPLE_BYTES).removeprefix(BOM).lstrip()
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check the disk and try again") from None
    if _PYTHON.match(head):
        raise ConfigError(_python_dictionaries(path, compression))
    if not _START.match(head):
        return None
    lines = head.split(b"\n")
    form: JsonFormat = "json-lines" if head.startswith(b"{") and _are_rows(lines[:_FEW_LINES]) else "json"
    if form == "json-lines":
        rows = list(_objects(lines[:SAMPLE_LINES]))
    else:
        block, elements, _ = elements_of(without_opening(head), is_last=False)
        places = zip(elements.starts[:SAMPLE_LINES].tolist(), elements.stops.tolist(), strict=False)
        rows = list(_objects([block[start:stop].tobytes() for start, stop in places]))
    _check_objects(path, head, rows)
    return _flattened(form, found, rows)


def _are_rows(lines: Sequence[bytes]) -> bool:
    """Whether lines are objects: the first one, or half of all that are not blank."""
    filled = [line for line in lines if line.strip()]
    return bool(list(_objects(filled[:1]))) or 2 * len(list(_objects(filled))) >= len(filled)


def _check_objects(path: str, head: bytes, rows: Sequence[dict[str, Any]]) -> None:
    """Raises an error if the file is no sequence of objects."""
    if _BY_COLUMN.match(head) or _SPLIT.match(head):
        raise ConfigError(
            f"{path}: JSON by columns, or in parts, as pandas writes it; write rows: "
            "table.to_json('events.jsonl', orient='records', lines=True)"
        )
    if not rows:
        if len(head) < SAMPLE_BYTES and head.startswith(b"[") and without_opening(head).strip() == b"]":
            raise DataError(f"{path}: an empty JSON array; leave it out, or write it again")
        raise ConfigError(
            f"{path}: JSON, but not objects with named fields of at most {SAMPLE_BYTES:,} bytes; give an object for "
            "each event, in an array or one a line"
        )
    lists = {name: value for name, value in rows[0].items() if isinstance(value, list)}
    nested = [name for name, value in lists.items() if value and isinstance(value[0], dict)]
    if len(rows) == 1 and nested:
        raise ConfigError(
            f"{path}: a single JSON object, whose field {nested[0]!r} holds a list of objects; if these are the "
            f"events, write them alone: jq '.[\"{nested[0]}\"]' '{path}' > events.json"
        )


def _python_dictionaries(path: str, compression: Compression) -> str:
    program = "import ast,json,sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]"
    read = "gzip -dc" if compression == "gzip" else "cat"
    return (
        f"{path}: its lines are Python dictionaries, not JSON; convert them: {read} '{path}' | "
        f"python3 -c '{program}' > events.json"
    )


def _objects(texts: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Those of the texts that are JSON objects."""
    for text in texts:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def _flattened(form: JsonFormat, encoding: str, rows: Sequence[dict[str, Any]]) -> JsonSample:
    pointers: dict[str, str] = {}
    flat: list[dict[str, Any]] = []
    for row in rows:
        values: dict[str, Any] = {}
        for keys, value in _leaves(row, ()):
            # The name of a field of its own is not taken by a nested one: `a.b` beside {"a": {"b": 1}}.
            name, pointer = ".".join(keys), "".join("/" + _escaped(key) for key in keys)
            if pointers.setdefault(name, pointer) == pointer:
                values[name] = value
        flat.append(values)
    return JsonSample(form, encoding, pointers, flat)


def _leaves(value: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner and len(keys) < _MAX_DEPTH:
            yield from _leaves(inner, (*keys, key))
        else:
            yield (*keys, key), inner


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
