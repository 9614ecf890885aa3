"""Recognises the format of an event file by its content, not by its name."""

import difflib
import re

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.decimal_comma import roles_with_decimal_commas
from streamfeat.events.encodings import REPLACED, not_utf8
from streamfeat.events.json_files import recognise_json
from streamfeat.events.lists.sites import recognise_list
from streamfeat.events.parquet import parquet_columns, sample_times
from streamfeat.events.roles import check_roles, find_roles
from streamfeat.events.sample import TextSample, kind_of, sample_text, sampled_rows, split_line, zip_of_no_list
from streamfeat.events.source import FORMATS, Compression, Format, Source, SourceTimeUnit
from streamfeat.events.times import recognise_times
from streamfeat.events.titles import read_titles
from streamfeat.events.watch_columns import with_watch_columns

__all__ = ["FORMATS", "Source", "read_titles", "recognise"]

_RATING_COLUMNS = ("user", "item", "rating", "timestamp")
_HEADERLESS: dict[Format, str] = {"movielens-100k": "\t", "movielens-dat": "::", "movietweetings": "::"}
_DELIMITERS = {"\t": "tab", "::": "'::'", ";": "semicolon", "|": "pipe", ",": "comma"}
_TYPED = re.compile(r"(?P<name>[^:\t]+):(token|float|token_seq|float_seq)")
_LONG_NAMES: dict[Format, str] = {
    "movielens-100k": "MovieLens u.data",
    "movielens-dat": "MovieLens ratings.dat",
    "movielens-csv": "MovieLens ratings.csv",
    "movietweetings": "MovieTweetings ratings.dat",
    "recbole": "RecBole .inter",
    "csv": "delimited text",
    "parquet": "Parquet",
}


def recognise(path: str, config: BuildConfig) -> Source:
    """Recognises the event file at `path`, with the format, columns and time unit of `config`.

    Raises ConfigError if columns are missing (the message lists those found and the closest), the file does not have
    the given format, or its unit of time is ambiguous; DataError if it is empty or damaged.
    """
    if config.format not in ("auto", *FORMATS):
        close = difflib.get_close_matches(config.format, FORMATS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: auto, {', '.join(FORMATS)}"
        raise ConfigError(f"format: unknown format {config.format!r}; {hint}")
    check_roles(config.columns)
    kind = kind_of(path, config.encoding)
    if config.format == "parquet" and kind != "parquet":
        raise DataError(f"{path}: --format parquet was given, but this is not a Parquet file; leave out --format")
    if kind == "parquet":
        if config.format not in ("auto", "parquet"):
            raise ConfigError(
                f"{path}: --format {config.format} was given, but this is a Parquet file; leave out --format"
            )
        return with_watch_columns(_recognise_parquet(path, config), config)
    compression: Compression = "gzip" if kind == "gzip" else "none"
    if (found := recognise_list(path, compression, config)) is not None:
        return found
    if kind == "zip":
        raise zip_of_no_list(path)
    if (found := recognise_json(path, compression, config)) is not None:
        return with_watch_columns(found, config)
    sample = sample_text(path, compression, config.encoding)
    try:
        return with_watch_columns(_recognise_text(path, sample, config), config)
    except ConfigError as error:
        raise error if not sample.seems else ConfigError(f"{error}; {not_utf8(sample.seems)}") from None


def _recognise_parquet(path: str, config: BuildConfig) -> Source:
    names = parquet_columns(path)
    columns = find_roles(path, names, config.columns, in_first_line=False)
    sample = sample_times(path, columns["timestamp"])
    unit: SourceTimeUnit = "timestamp"
    if isinstance(sample, str):
        times = sample
    else:
        unit, times = recognise_times(path, columns["timestamp"], sample, config.time_unit)
    return Source(
        path=path,
        format="parquet",
        columns=columns,
        column_names=tuple(names),
        time_unit=unit,
        note=f"Parquet; {_roles_note(columns)}; {times}",
    )


def _recognise_text(path: str, sample: TextSample, config: BuildConfig) -> Source:
    asked = None if config.format == "auto" else config.format
    form, delimiter, quote, names = _layout(path, sample, asked, config)
    header = form not in _HEADERLESS
    columns = find_roles(path, names, config.columns, in_first_line=header)
    rows = sampled_rows(sample, delimiter, quote, len(names))[1 if header else 0 :]
    whole = [row for row in rows if len(row) == len(names)]
    if rows and not whole:
        raise ConfigError(
            f"{path}: no line has the {len(names)} fields of its first line (separated by {_DELIMITERS[delimiter]}); "
            f"the second reads {sample.head[-1][:60]!r}; give the file one delimiter throughout"
        )
    used = {role: [row[names.index(column)] for row in whole] for role, column in columns.items()}
    unit, times = recognise_times(path, columns["timestamp"], used["timestamp"], config.time_unit)
    parts = [
        f"{_LONG_NAMES[form]}, {_DELIMITERS[delimiter]} between fields",
        *(["gzip"] * (sample.compression == "gzip")),
        *([sample.encoding] if sample.encoding else []),
    ]
    decimal_commas = () if delimiter == "," else roles_with_decimal_commas(used)
    seems = sample.seems if any(REPLACED in value for values in used.values() for value in values) else ""
    remarks = [
        *([f"decimal commas in {', '.join(decimal_commas)}"] if decimal_commas else []),
        *([not_utf8(seems)] if seems else []),
    ]
    return Source(
        path=path,
        format=form,
        columns=columns,
        column_names=tuple(names),
        time_unit=unit,
        delimiter=delimiter,
        quote='"' if quote else "",
        header=header,
        compression=sample.compression,
        encoding=sample.encoding,
        first_line=2 if sample.separator else 1,
        decimal_commas=decimal_commas,
        seems=seems,
        note="; ".join([", ".join(parts), _roles_note(columns), times, *remarks]),
    )


def _roles_note(columns: dict[str, str]) -> str:
    return ", ".join(f"{role}={column}" if role != column else role for role, column in columns.items())


def _layout(
    path: str, sample: TextSample, asked: str | None, config: BuildConfig
) -> tuple[Format, str, str, list[str]]:
    """Format, delimiter, quote and column names of a text file. `asked` is the format that the user gave, if any."""
    first = sample.head[0]
    for known, delimiter in _HEADERLESS.items():
        if asked == known or (asked is None and _is_headerless(known, sample)):
            if len(first.split(delimiter)) != len(_RATING_COLUMNS):
                raise ConfigError(
                    f"{path}: {_LONG_NAMES[known]} has 4 fields separated by {_DELIMITERS[delimiter]}; "
                    f"its first line reads {first[:60]!r}; leave out --format"
                )
            return known, delimiter, "", list(_RATING_COLUMNS)
    typed = [_TYPED.fullmatch(field) for field in first.split("\t")]
    if asked in (None, "recbole") and all(typed):
        return "recbole", "\t", "", [match["name"] for match in typed if match]
    if asked == "recbole":
        raise ConfigError(f"{path}: a RecBole file starts with typed names such as user_id:token; got {first[:60]!r}")
    delimiter, quote, names = _header(path, sample, config)
    form: Format = "movielens-csv" if names == ["userId", "movieId", "rating", "timestamp"] else "csv"
    if asked == "movielens-csv" and form != asked:
        raise ConfigError(
            f"{path}: MovieLens ratings.csv starts with userId,movieId,rating,timestamp; got {first[:60]!r}"
        )
    return form, delimiter, "" if form == "movielens-csv" else quote, names


def _is_headerless(form: Format, sample: TextSample) -> bool:
    """Whether the first lines are rows of user, item, rating and time in the format `form`."""
    rows = [line.split(_HEADERLESS[form]) for line in sample.head[:100]]
    number = re.compile(r"-?\d+(\.\d+)?")
    numeric = [len(row) == 4 and all(number.fullmatch(value) for value in row) for row in rows]
    if sum(numeric) * 2 <= len(rows) or not numeric[0]:
        return False
    # IMDb ids have at least seven digits; smaller ones have leading zeros.
    imdb = all(len(row[1]) >= 7 for row, good in zip(rows, numeric, strict=True) if good)
    return form == "movielens-100k" or imdb == (form == "movietweetings")


def _header(path: str, sample: TextSample, config: BuildConfig) -> tuple[str, str, list[str]]:
    """Delimiter, quote and column names of a file whose first line names its columns.

    Takes the delimiter with most columns among those that give every required role a column. If there is none, raises
    the error of the delimiter with most columns.
    """
    errors: list[tuple[int, ConfigError]] = []
    found: list[tuple[int, str, str, list[str]]] = []
    if sample.separator and sample.separator not in _DELIMITERS:
        raise ConfigError(
            f"{path}: its first line names {sample.separator!r} as separator; write the file with one of "
            f"{', '.join(_DELIMITERS.values())}"
        )
    for delimiter in [sample.separator] if sample.separator else _DELIMITERS:
        quote = _quote(delimiter, sample)
        names = [name.strip() for name in split_line(sample.head[0], delimiter, quote)]
        try:
            find_roles(path, names, config.columns, in_first_line=True)
            found.append((len(names), delimiter, quote, names))
        except ConfigError as error:
            errors.append((len(names), error))
    if not found:
        raise max(errors, key=lambda e: e[0])[1]
    _, delimiter, quote, names = max(found, key=lambda f: f[0])
    return delimiter, quote, names


def _quote(delimiter: str, sample: TextSample) -> str:
    """The quote character. Comma, semicolon and pipe files have quoted fields as in CSV; tab-separated files only if a
    sampled line has one."""
    if delimiter == "::":
        return ""
    if delimiter != "\t":
        return '"'
    fields = (field for line in sample.head for field in line.split("\t"))
    return '"' if any(len(field) > 1 and field[0] == field[-1] == '"' for field in fields) else ""
