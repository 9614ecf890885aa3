"""`Rows`: the result of calls that return a table. It prints a few lines and converts to pandas, Arrow or JSON."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, overload

import pyarrow as pa

from streamfeat.errors import require_extra
from streamfeat.plain_text import aligned, as_html, harmless

_PRINTED = 10  # most printed rows

Read = Callable[[int, int], pa.Table]


class Rows:
    """Rows of named columns: items, users, a history, figures, recommendations.

    `to_frame()` gives pandas, `to_arrow()` Arrow, `to_dict()` values that JSON takes. Iterating gives a dict for each
    row, `rows[0]` the first one. polars, DuckDB and others that read Arrow take the object itself:
    `polars.DataFrame(data.items)`.
    """

    def __init__(
        self,
        title: str,
        table: pa.Table,
        *,
        json: dict[str, Any] | None = None,
        printed: pa.Table | None = None,
    ) -> None:
        """json: what `to_dict` gives, if not the columns. printed: what is printed, if not the first rows."""
        self._title, self._json, self._printed = title, json, printed
        self._read: Read = lambda first, last: table.slice(first, last - first)
        self._num_rows = len(table)

    @classmethod
    def read_by(cls, title: str, read: Read, num_rows: int) -> "Rows":
        """Rows that are read when they are needed: `read(first, last)` gives the rows first to last - 1."""
        rows = cls(title, pa.table({}))
        rows._read, rows._num_rows = read, num_rows
        return rows

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._read(0, 0).column_names)

    def to_arrow(self) -> pa.Table:
        """All rows as a `pyarrow.Table`."""
        return self._read(0, self._num_rows)

    def to_frame(self) -> Any:
        """All rows as a `pandas.DataFrame`. Raises MissingExtraError if pandas is not installed."""
        require_extra("pandas", "pandas", "to_frame()")
        return self.to_arrow().to_pandas()

    def to_dict(self) -> dict[str, Any]:
        """JSON values: column → values, with times as Unix seconds. For an evaluation or recommendations, the object
        that `--json` prints (docs/evaluate.md, docs/recommend.md)."""
        if self._json is not None:
            return self._json
        table = self.to_arrow()
        return {name: [_json_value(value) for value in table[name].to_pylist()] for name in table.column_names}

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return self._num_rows

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """`rows[0]` is a dict, `rows[:3]` a list of them. Other rows are not read."""
        places = range(self._num_rows)[index]
        if isinstance(places, int):
            return dict(self._read(places, places + 1).to_pylist()[0])
        first, last = (min(places), max(places) + 1) if places else (0, 0)
        read = self._read(first, last).to_pylist()
        return [read[place - first] for place in places]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.to_arrow().to_batches():
            yield from batch.to_pylist()

    def __repr__(self) -> str:
        rows, more = self._first_rows()
        return "\n".join([harmless(self._title), *aligned(rows), *([more] if more else [])])

    def _repr_html_(self) -> str:
        """For notebooks. Everything is escaped, because ids and titles come from files."""
        rows, more = self._first_rows()
        head = "".join(f"<th>{as_html(name)}</th>" for name in (rows[0] if rows else ()))
        body = "".join(f"<tr>{''.join(f'<td>{as_html(text)}</td>' for text in row.values())}</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div><p>{as_html(self._title)}</p>{table}<p>{as_html(more)}</p></div>"

    def _first_rows(self) -> tuple[list[dict[str, str]], str]:
        """The first rows as texts, without columns that are empty in all of them; and a line if there are more rows."""
        table, more = self._printed, ""
        if table is None:
            table = self._read(0, min(_PRINTED, self._num_rows))
            more = f"… {self._num_rows:,} rows" if self._num_rows > len(table) else ""
        names = [name for name in table.column_names if table[name].null_count < max(1, len(table))]
        return [{name: _text(row[name]) for name in names} for row in table.select(names).to_pylist()], more


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)


def _json_value(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value
