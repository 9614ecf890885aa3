"""Counts the rows of a text file in one pass, and decides whether its quoted fields may hold line breaks."""

from dataclasses import dataclass

import numpy as np

from streamfeat.errors import StorageError
from streamfeat.events.source import Source
from streamfeat.events.text_stream import BOM, GZIP_ERRORS, damaged_gzip, open_text
from streamfeat.kernels import records
from streamfeat.kernels.lines import MAX_LINE_LEN, NO_QUOTE, Dialect

_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class RowCount:
    """The rows of a text file, in bytes of its decompressed UTF-8 text."""

    starts: list[int]  # of the rows first, first + every, …
    num_rows: int  # with those before the first; blank ones at the end are not counted
    content_end: int  # the end of the last one
    over_lines: bool  # whether a quoted field holds a line break, so that some rows are several lines
    note: str  # one line for the user about quotes that are not believed over lines; "": there is nothing to say


def dialect_of(source: Source) -> Dialect:
    """What the kernels know of a source."""
    delimiter = np.array(list(source.delimiter.encode("ascii")), np.uint8)
    quote = ord(source.quote) if source.quote else NO_QUOTE
    return Dialect(delimiter, quote, len(source.column_names), int(source.over_lines))


def count_rows(source: Source, first: int, every: int) -> RowCount:
    """Counts the rows of `source` and finds the starts of the rows first, first + every, … (0-based).

    A row is a record over lines if that can be believed of the whole file: every quoted field closes before a delimiter
    or the end of a line, every record over several lines has the columns of the header, and not most of these records
    are several lines that each have them. Otherwise a row is a line. Raises DataError if a gzip file is damaged.
    """
    lines = _Lines(first, every)
    quoted = _Records(dialect_of(source), lines) if source.quote else None
    try:
        with open_text(source.path, source.compression, source.encoding) as stream:
            while data := stream.read(_BLOCK_BYTES):
                lines.add(data)
                if quoted is not None:
                    quoted.add(data)
    except GZIP_ERRORS as error:
        raise damaged_gzip(source.path, error) from None
    except OSError as error:
        raise StorageError(f"{source.path}: cannot be read ({error.strerror}); check the disk and try again") from None
    starts, num_rows, over_lines, note = lines.starts, lines.num_rows, False, ""
    if quoted is not None:
        quoted.end()
        if quoted.doubt:
            note = f"one line is one row: {quoted.doubt}"
            if quoted.has_backslashes:
                note += (
                    "; if quotes within fields have a backslash, as MySQL and Spark write them, double them instead: "
                    f"sed 's/\\\\\"/\"\"/g' '{source.path}' > events.csv"
                )
        elif quoted.spans_lines:
            starts, num_rows, over_lines = quoted.starts, quoted.num_rows, True
    return RowCount(
        [start for start in starts if start < lines.content_end], num_rows, lines.content_end, over_lines, note
    )


def spans_lines(text: bytes, delimiter: str, num_fields: int) -> bool:
    """Whether quoted fields of `text`, the beginning of a file, hold line breaks, without a doubt up to there."""
    dialect = Dialect(np.array(list(delimiter.encode("ascii")), np.uint8), ord('"'), num_fields)
    lines = _Lines(0, len(text) + 1)
    lines.add(text)
    found = _Records(dialect, lines)
    found.add(text)
    return found.spans_lines and not found.joins_rows and not found.doubt


class _Lines:
    """Counts physical lines."""

    def __init__(self, first: int, every: int) -> None:
        self.first, self.every = first, every
        self.starts: list[int] = []
        self.num_rows = self.content_end = 0
        self.num_bytes = self.num_feeds = 0  # so far

    def add(self, data: bytes) -> None:
        """Reads on."""
        feeds = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        content_len = len(data.rstrip(b"\r\n"))
        if content_len:
            self.content_end = self.num_bytes + content_len
            self.num_rows = self.num_feeds + int(np.searchsorted(feeds, content_len)) + 1
        line = self.first + len(self.starts) * self.every
        if line == 0:
            self.starts.append(len(BOM) if data.startswith(BOM) else 0)
            line = self.every
        # Line k starts after line feed k - 1.
        while line <= self.num_feeds + len(feeds):
            self.starts.append(self.num_bytes + int(feeds[line - 1 - self.num_feeds]) + 1)
            line += self.every
        self.num_bytes += len(data)
        self.num_feeds += len(feeds)


class _Records:
    """Counts records whose quoted fields may hold line breaks, until there is a doubt about them.

    Up to the line of the first quote they are lines: a file without quotes is not read a second time.
    """

    def __init__(self, dialect: Dialect, lines: _Lines) -> None:
        self._dialect, self._lines = dialect, lines
        self._state = np.zeros(records.STATE_LEN, np.int64)
        self._state[records.LINES_FIT] = 1
        self._line = b""  # while there is no quote: the beginning of the line that is not finished
        self._started = False
        self._last_byte = b"\n"
        self.starts: list[int] = []
        self.doubt = ""
        self.has_backslashes = False  # whether a quote stood behind one, before there was a doubt

    @property
    def num_rows(self) -> int:
        return int(self._state[records.ROWS])

    @property
    def spans_lines(self) -> bool:
        return bool(self._state[records.SPANNING])

    @property
    def joins_rows(self) -> bool:
        """Whether most records over several lines are lines that would each be a row by themselves."""
        return bool(2 * self._state[records.ROW_LIKE] > self._state[records.SPANNING])

    def add(self, data: bytes) -> None:
        """Reads on, after `lines`."""
        self._last_byte = data[-1:]
        if not self._started:
            data = self._start(data)
        if self._started and not self.doubt:
            self.has_backslashes |= b'\\"' in data
            self._follow(data)

    def _start(self, data: bytes) -> bytes:
        """Looks for the first quote. Returns the text from the beginning of its line on."""
        lines = self._lines
        if lines.num_bytes == len(data):
            data = data.removeprefix(BOM)
        quote = data.find(b'"')
        line = data.rfind(b"\n", 0, None if quote < 0 else quote) + 1
        text = data[line:] if line else self._line + data
        if quote < 0:
            self._line = text[: MAX_LINE_LEN + 1]
            return b""
        self._started = True
        for place in (records.RECORDS, records.LINE, records.RECORD_LINE):
            self._state[place] = lines.num_feeds - text.count(b"\n")
        self.starts = [start for start in lines.starts if start <= lines.num_bytes - len(text)]
        return text

    def _follow(self, text: bytes) -> None:
        lines = self._lines
        base = lines.num_bytes - len(text)
        places = np.empty(text.count(b"\n") // lines.every + 1, np.int64)
        block = np.frombuffer(bytearray(text), np.uint8)  # kernels take writable arrays
        num = records.follow_records(block, self._dialect, self._state, lines.first, lines.every, places)
        self.starts += (base + places[:num]).tolist()
        self.doubt = self._doubt()

    def end(self) -> None:
        """Ends the last record."""
        if not self._started or self.doubt:
            return
        state = self._state
        if state[records.PLACE] == records.QUOTED:
            self.doubt = f"the quote that opens in line {state[records.RECORD_LINE] + 1} does not close"
        elif self._last_byte != b"\n":
            line_feed = np.frombuffer(bytearray(b"\n"), np.uint8)
            records.follow_records(line_feed, self._dialect, state, 0, 1, np.empty(1, np.int64))
            self.doubt = self._doubt()
        if not self.doubt and self.joins_rows:
            self.doubt = "its quotes would join lines that are rows by themselves"

    def _doubt(self) -> str:
        state = self._state
        line, first_line = state[records.LINE] + 1, state[records.RECORD_LINE] + 1
        match state[records.DOUBT]:
            case records.TEXT_AFTER_QUOTE:
                return f"a quote that closes in line {line} is followed by text"
            case records.WRONG_WIDTH:
                return (
                    f"the quotes in the lines {first_line} to {line - 1} would make a row of "
                    f"{state[records.FIELDS] + 1} columns, not {self._dialect.num_fields}"
                )
            case records.TOO_LONG:
                return f"the quote that opens in line {first_line} does not close within {MAX_LINE_LEN:,} bytes"
        return ""
