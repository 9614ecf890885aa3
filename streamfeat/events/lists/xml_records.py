"""Reads XML of the form <root><record><field>text</field>…</record>…</root>, and nothing that could do harm."""

from dataclasses import dataclass, field
from xml.parsers import expat

from streamfeat.errors import DataError

_MAX_TEXT = 1 << 20  # characters of a field


@dataclass(frozen=True)
class Record:
    """An element below the root: its name, and the texts of its fields."""

    name: str
    fields: dict[str, str] = field(default_factory=dict)

    def get(self, *names: str) -> str:
        """The text of the first of these fields that is there and not empty."""
        return next((text for name in names if (text := self.fields.get(name, ""))), "")


def read_records(path: str, data: bytes, encoding: str | None) -> list[Record]:
    """The records in order. `encoding` comes before the one that the XML declares.

    A document type is refused: it can name entities, which can stand for other files or grow without bound. Raises
    DataError for that and for text that is no XML.
    """
    reader = _Reader(path)
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DataError(f"{path}: the XML cannot be read ({error}); export the list again") from None
    return reader.records


class _Reader:
    """Collects what lies two and three levels deep."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.records: list[Record] = []
        self._depth = 0
        self._parts: list[str] = []
        self._len = 0

    def doctype(self, name: str, *_: object) -> None:
        raise DataError(
            f"{self.path}: its XML has a document type ({name[:40]!r}), which no list has; remove that line"
        )

    def start(self, name: str, _: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 2:
            self.records.append(Record(name))
        elif self._depth == 3:
            self._parts, self._len = [], 0

    def text(self, data: str) -> None:
        if self._depth == 3 and self._len < _MAX_TEXT:
            self._parts.append(data)
            self._len += len(data)

    def end(self, name: str) -> None:
        if self._depth == 3:
            self.records[-1].fields[name] = "".join(self._parts).strip()
        self._depth -= 1
