"""Reads a file as the files of a dataset were read: with their columns, units and words where it has those columns."""

from collections.abc import Sequence
from typing import Any, get_args

from streamfeat.config import AUTO_ENCODING, BuildConfig, TimeUnit
from streamfeat.errors import ConfigError
from streamfeat.events.formats import recognise
from streamfeat.events.lists.sites import SITES
from streamfeat.events.source import REQUIRED_ROLES, ROLES, Source
from streamfeat.events.whole_files import is_read_whole
from streamfeat.reading import Reading


def reading_of(source: Source) -> Reading:
    """How `source` is read."""
    return Reading(**{name: getattr(source, name) for name in Reading.model_fields})


def recognise_again(path: str, config: BuildConfig, readings: Sequence[Reading]) -> tuple[Source, list[str]]:
    """The file `path`, recognised as the files of `readings` were, and texts about what is read otherwise.

    What `config` gives counts most, then the reading that the file has most columns of, then what is recognised. The
    unit of times is that of the reading only where the file's own values do not say another. Raises the errors of
    `formats.recognise`.
    """
    try:
        own, error = recognise(path, config), None
    except ConfigError as caught:
        own, error = None, caught
    if own is not None and is_read_whole(own):
        return _list_again(own, config, readings), []
    for reading in sorted(readings, key=lambda reading: -_num_columns(reading, own)):
        found = _as_before(path, config, reading, own)
        if found is not None:
            found = _with_unit(found, reading)
            return found, _otherwise(found, reading, config)
    if error is not None:
        raise error
    assert own is not None
    return own, _otherwise(own, readings[0], config) if readings else []


def _list_again(own: Source, config: BuildConfig, readings: Sequence[Reading]) -> Source:
    """The list of a site, with the words of status and the constants of the dataset's lists of that site."""
    reading = next((reading for reading in readings if reading.format == own.format), None)
    if reading is None:
        return own
    constants = {role: value for role, value in reading.constants.items() if role != "user"} | config.constant
    again = config.model_copy(update={"status": reading.statuses | config.status, "constant": constants})
    return recognise(own.path, again)


def _with_unit(source: Source, reading: Reading) -> Source:
    """`source` with the completion's unit of `reading` if both have the same column: in a slice, percent may all be
    below 1."""
    same = source.columns.get("completion", "") == reading.columns.get("completion")
    return source.model_copy(update={"completion_unit": reading.completion_unit}) if same else source


def _num_columns(reading: Reading, own: Source | None) -> int:
    return 0 if own is None else len(set(reading.columns.values()) & set(own.column_names))


def _as_before(path: str, config: BuildConfig, reading: Reading, own: Source | None) -> Source | None:
    """The file read with the columns of `reading`; None if it lacks one that is required. `own` is what it was
    recognised as by itself, if it could be."""
    columns = {
        role: "+".join([column, *reading.joined]) if role == "timestamp" else column
        for role, column in reading.columns.items()
    }
    needed = {role: columns[role] for role in REQUIRED_ROLES if role in columns}
    if own is None:
        attempts = [columns, needed]
    elif {*reading.joined, *(reading.columns[role] for role in needed)} <= set(own.column_names):
        attempts = [{role: column for role, column in columns.items() if role in needed or column in own.column_names}]
    else:
        return None
    forms = ["auto", reading.format] if config.format == "auto" else [config.format]
    units = [config.time_unit, *([_unit(reading)] if config.time_unit == "auto" else [])]
    for form in forms:
        for attempt in attempts:
            given = _config(config, reading, _without(reading, own) | attempt, form)
            for unit in dict.fromkeys(units):
                try:
                    return recognise(path, given.model_copy(update={"time_unit": unit}))
                except ConfigError:
                    continue
    return None


def _without(reading: Reading, own: Source | None) -> dict[str, str]:
    """No column for the roles that had none, unless the file has a column for it that the dataset's files had not."""
    found = {} if own is None else own.columns
    return {
        role: ""
        for role in ROLES
        if role not in reading.columns and role != "total" and found.get(role, "") in ("", *reading.column_names)
    }


def _config(config: BuildConfig, reading: Reading, columns: dict[str, str], form: str) -> BuildConfig:
    columns = {**columns, **config.columns}
    columns = {role: column for role, column in columns.items() if role not in config.constant}
    constants = {role: value for role, value in reading.constants.items() if not columns.get(role)} | config.constant
    update: dict[str, Any] = {
        "columns": {role: column for role, column in columns.items() if role not in constants},
        "constant": constants,
        "format": form,
        "unrated": reading.unrated if config.unrated == "auto" else config.unrated,
        "status": reading.statuses | config.status,
        "encoding": reading.encoding if config.encoding == AUTO_ENCODING and reading.encoding else config.encoding,
    }
    return config.model_copy(update=update)


def _unit(reading: Reading) -> str:
    return reading.time_unit if reading.time_unit in get_args(TimeUnit) else "auto"


def _otherwise(source: Source, reading: Reading, config: BuildConfig) -> list[str]:
    """What is read otherwise than the dataset's files, although the file has some of their columns. A list has none."""
    if reading.format in SITES or not set(reading.columns.values()) & set(source.column_names):
        return []
    told = [
        f"{role} is read from {source.columns[role]!r}, but for the dataset it was read from {column!r}"
        for role, column in reading.columns.items()
        if role != "user" and source.columns.get(role, column) != column and role not in config.columns
    ]
    units = {source.time_unit, reading.time_unit}
    if len(units) == 2 and config.time_unit == "auto" and not units <= {"iso", "timestamp"}:
        told.append(f"times are read as {source.time_unit}, but for the dataset they were read as {reading.time_unit}")
    return told
