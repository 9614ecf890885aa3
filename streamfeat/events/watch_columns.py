"""Decides how the columns of status and completion of a recognised file are read, from sampled values."""

import re
from collections.abc import Sequence

from streamfeat.config import AUTO_ENCODING, BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.completions import recognise_completion
from streamfeat.events.json_files import JSON_FORMATS, json_column
from streamfeat.events.parquet import sample_column
from streamfeat.events.sample import sample_text, split_line
from streamfeat.events.source import Source
from streamfeat.events.statuses import recognise_statuses


def with_watch_columns(source: Source, config: BuildConfig) -> Source:
    """`source` with its statuses and the unit of its completion. A column that holds neither loses its role, and the
    note says so.

    Raises ConfigError if that column was named in `config`, so that it is not left out against the user's word.
    """
    columns, statuses, unit, notes = dict(source.columns), dict(config.status), source.completion_unit, [source.note]
    samples = _Samples(source)
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
        completion = recognise_completion(column, columns.get("total"), source.column_names, samples.of)
        notes += [completion.note] if completion.note else []
        if completion.unit is None:
            notes[0] = _without(notes[0], "completion", columns.pop("completion"))
            _refuse_if_asked(source, config, "completion", completion.note)
        else:
            unit = completion.unit
            columns |= {"total": completion.total} if completion.total else {}
    if "completion" not in columns:
        columns.pop("total", None)
    return source.model_copy(
        update={"columns": columns, "statuses": statuses, "completion_unit": unit, "note": "; ".join(notes)}
    )


def _without(note: str, role: str, column: str) -> str:
    """A source's note without one of the roles that it lists."""
    return re.sub(rf", {role}(={re.escape(column)})?( \(not [^)]*\))?(?=[,;]|$)", "", note, count=1)


def _refuse_if_asked(source: Source, config: BuildConfig, role: str, why: str) -> None:
    if config.columns.get(role):
        raise ConfigError(f"{source.path}: --columns {role}={config.columns[role]}: {why}")


class _Samples:
    """Sampled values of columns, read when they are first asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows: list[list[str]] | None = None

    def of(self, column: str) -> Sequence[str]:
        """Values of the column as text, of the same rows for every column; empty where there is none."""
        source = self._source
        if source.format == "parquet":
            return sample_column(source.path, column)
        if source.format in JSON_FORMATS:
            return json_column(source, column)
        if self._rows is None:
            sample = sample_text(source.path, source.compression, source.encoding or AUTO_ENCODING)
            lines = sample.head[int(source.header) :] + sample.rest
            rows = (split_line(line, source.delimiter, source.quote) for line in lines)
            self._rows = [row for row in rows if len(row) == len(source.column_names)]
        place = source.column_names.index(column)
        return [row[place] for row in self._rows]
