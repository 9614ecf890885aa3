"""Sampled values of the columns of a recognised file."""

from collections.abc import Sequence

from streamfeat.config import AUTO_ENCODING
from streamfeat.events.json_files import JSON_FORMATS, json_column
from streamfeat.events.parquet import sample_column
from streamfeat.events.sample import sample_text, sampled_rows
from streamfeat.events.source import Source


class ColumnSamples:
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
            num = len(source.column_names)
            rows = sampled_rows(sample, source.delimiter, source.quote, num)[int(source.header) :]
            self._rows = [row for row in rows if len(row) == num]
        place = source.column_names.index(column)
        return [row[place] for row in self._rows]
