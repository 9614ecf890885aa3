"""Recognises the format of an event file by its content, not by its name."""

import difflib
from functools import partial

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.decimal_comma import roles_with_decimal_commas
from streamfeat.events.encodings import REPLACED, not_utf8
from streamfeat.events.json_files import recognise_json
from streamfeat.events.lists.sites import recognise_list
from streamfeat.events.parquet import parquet_columns, sample_column, sample_times
from streamfeat.events.roles import Table, check_roles, find_roles
from streamfeat.events.sample import TextSample, kind_of, sample_text, zip_of_no_list
from streamfeat.events.source import FORMATS, Compression, Source, SourceTimeUnit
from streamfeat.events.text_layout import DELIMITERS, find_layout
from streamfeat.events.times import check_first_moments, joined_times, recognise_times
from streamfeat.events.unrated import with_unrated
from streamfeat.events.watch_columns import with_watch_columns


def recognise(path: str, config: BuildConfig) -> Source:
    """Recognises the event file at `path`, with what `config` says about reading.

    Raises ConfigError if columns are missing (the message lists those found and the closest), the file does not have
    the given format, or its unit of time is ambiguous; DataError if it is empty or damaged.
    """
    return with_unrated(_recognised(path, config), config)


def _recognised(path: str, config: BuildConfig) -> Source:
    if config.format not in ("auto", *FORMATS):
        close = difflib.get_close_matches(config.format, FORMATS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: auto, {', '.join(FORMATS)}"
        raise ConfigError(f"format: unknown format {config.format!r}; {hint}")
    check_roles(config.columns, config.constant)
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
    roles = find_roles(Table(path, names, partial(sample_column, path)), config.columns, config.constant)
    columns = roles.columns
    if roles.joined:
        sample: list[str] | str = joined_times([sample_column(path, c) for c in (columns["timestamp"], *roles.joined)])
    else:
        sample = sample_times(path, columns["timestamp"])
    unit: SourceTimeUnit = "timestamp"
    if isinstance(sample, str):
        times = sample
        if config.time_unit == "auto":
            check_first_moments(path, columns["timestamp"], sample_column(path, columns["timestamp"]))
    else:
        unit, times = recognise_times(path, columns["timestamp"], sample, config.time_unit)
    return Source(
        path=path,
        format="parquet",
        columns=columns,
        joined=roles.joined,
        constants=config.constant,
        column_names=tuple(names),
        time_unit=unit,
        float_ids=roles.float_ids,
        note=f"Parquet; {roles.note}; {times}",
    )


def _recognise_text(path: str, sample: TextSample, config: BuildConfig) -> Source:
    layout = find_layout(path, sample, config)
    delimiter, names, columns = layout.delimiter, layout.names, layout.roles.columns
    whole = [row for row in layout.rows if len(row) == len(names)]
    if layout.rows and not whole:
        raise ConfigError(
            f"{path}: no line has the {len(names)} fields of its first line (separated by {DELIMITERS[delimiter]}); "
            f"the second reads {sample.head[-1][:60]!r}; give the file one delimiter throughout"
        )
    used = {role: [row[names.index(column)] for row in whole] for role, column in columns.items()}
    joined = [[row[names.index(column)] for row in whole] for column in layout.roles.joined]
    decimal_commas = () if delimiter[0] == "," else roles_with_decimal_commas(used)
    stamps = joined_times([used["timestamp"], *joined]) if joined else used["timestamp"]
    if "timestamp" in decimal_commas:
        stamps = [stamp.replace(",", ".") for stamp in stamps]
    unit, times = recognise_times(path, columns["timestamp"], stamps, config.time_unit)
    parts = [
        f"{layout.what}, {DELIMITERS[delimiter]} between fields",
        *(["gzip"] * (sample.compression == "gzip")),
        *([sample.encoding] if sample.encoding else []),
    ]
    seems = sample.seems if any(REPLACED in value for values in used.values() for value in values) else ""
    remarks = [
        *([f"decimal commas in {', '.join(decimal_commas)}"] if decimal_commas else []),
        *([not_utf8(seems)] if seems else []),
    ]
    return Source(
        path=path,
        format=layout.format,
        columns=columns,
        joined=layout.roles.joined,
        constants=config.constant,
        column_names=tuple(names),
        time_unit=unit,
        delimiter=delimiter,
        quote='"' if layout.quote else "",
        header=layout.header,
        compression=sample.compression,
        encoding=sample.encoding,
        first_line=2 if sample.separator else 1,
        decimal_commas=decimal_commas,
        float_ids=layout.roles.float_ids,
        seems=seems,
        note="; ".join([", ".join(parts), layout.roles.note, times, *remarks]),
    )
