"""Decides how the columns of status and completion of a recognised file are read, from sampled values."""

import re

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.column_samples import ColumnSamples
from streamfeat.events.column_values import number_of
from streamfeat.events.completions import recognise_completion
from streamfeat.events.source import Source
from streamfeat.events.statuses import recognise_statuses


def with_watch_columns(source: Source, config: BuildConfig) -> Source:
    """`source` with its statuses and the unit of its completion. A column that holds neither loses its role, and the
    note says so.

    Raises ConfigError if that column was named in `config`, so that it is not left out against the user's word.
    """
    columns, statuses, unit, notes = dict(source.columns), dict(config.status), source.completion_unit, [source.note]
    samples = ColumnSamples(source)
    if "status" in columns:
        column = columns["status"]
        found = recognise_statuses(column, samples.of(column), config.status)
        if found is None:
            notes[0] = _without(notes[0], "status", columns.pop("status"))
            what, remedy = "holds only 0 and 1, which name no status", "say what they mean with --status 0=…,1=…"
            _refuse_if_asked(source, config, "status", f"{what}; {remedy}")
            notes.append(f"{column} left out: it {what} ({remedy})")
        statuses = found or {}
    if "completion" in columns:
        column = columns["completion"]
        completion = recognise_completion(column, _total(source), source.column_names, samples.of)
        notes += [completion.note] if completion.note else []
        if completion.unit is None:
            notes[0] = _without(notes[0], "completion", columns.pop("completion"))
            _refuse_if_asked(source, config, "completion", completion.note)
        else:
            unit = completion.unit
            columns |= {"total": completion.total} if completion.total and "total" not in source.constants else {}
    if "completion" not in columns:
        columns.pop("total", None)
    return source.model_copy(
        update={"columns": columns, "statuses": statuses, "completion_unit": unit, "note": "; ".join(notes)}
    )


def _total(source: Source) -> str | None:
    """The column of totals, or the total of every row, that the user gave. Raises ConfigError if it is no total."""
    given = source.constants.get("total")
    if given is not None and not ((number := number_of(given)) and number > 0):
        raise ConfigError(f"constant: total={given}: is no number above 0; give the total of every row, as total=100")
    return given or source.columns.get("total")


def _without(note: str, role: str, column: str) -> str:
    """A source's note without one of the roles that it lists."""
    return re.sub(rf", {role}(={re.escape(column)})?( \(not [^)]*\))?(?=[,;]|$)", "", note, count=1)


def _refuse_if_asked(source: Source, config: BuildConfig, role: str, why: str) -> None:
    if config.columns.get(role):
        raise ConfigError(f"{source.path}: --columns {role}={config.columns[role]}: {why}")
