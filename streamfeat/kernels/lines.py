"""Splits delimited text into lines, checks each line, and copies the good ones together.

A row is one physical line, or a record over several of them (`kernels/records.py`). Rows are checked before the CSV
parser reads them; otherwise one stray quote would join all following rows to one field.
"""

from typing import NamedTuple

import numpy as np
from numba import int64, njit, types, uint8
from numpy.typing import NDArray

LINE_GOOD = 0
LINE_MALFORMED = 1  # unclosed quote, text after a closing quote, lone carriage return, wrong number of fields
LINE_INVALID_UTF8 = 2  # in a field that is needed
LINE_REPAIRED = 3  # good, but an unneeded field has bytes that are not UTF-8, which are replaced

MAX_LINE_LEN = 1 << 20  # bytes; a longer line is malformed
NO_QUOTE = -1

_LF = 10
_CR = 13
_QUESTION_MARK = 63


class Dialect(NamedTuple):
    """The delimiter, quote and number of fields of a file."""

    delimiter: NDArray[np.uint8]  # one or two bytes; searched from the left
    quote: int  # a byte or NO_QUOTE; only as a field's first byte it opens a quote; two inside stand for one (RFC 4180)
    num_fields: int
    over_lines: int = 0  # 1 if a quoted field may hold line breaks


class Lines(NamedTuple):
    """The lines of a block: (lines,) each."""

    starts: NDArray[np.int64]  # first byte
    stops: NDArray[np.int64]  # the byte after the last one, without the line end
    codes: NDArray[np.uint8]  # one of LINE_GOOD, …

    def part(self, first: int, stop: int) -> "Lines":
        return Lines(self.starts[first:stop], self.stops[first:stop], self.codes[first:stop])


_BYTES = uint8[::1]
_DIALECT = types.BaseTuple.from_types([_BYTES, int64, int64, int64], Dialect)
_LINES = types.BaseTuple.from_types([int64[::1], int64[::1], _BYTES], Lines)


@njit(int64(_BYTES, int64, int64), cache=True, nogil=True)
def utf8_sequence_len(block: NDArray[np.uint8], i: int, stop: int) -> int:
    """Bytes of the UTF-8 sequence at `i`; 0 if invalid (Unicode 15, table 3-7: no overlong forms, no surrogates)."""
    lead = block[i]
    if lead < 0x80:
        return 1
    low, high = 0x80, 0xBF
    if 0xC2 <= lead <= 0xDF:
        num = 2
    elif 0xE0 <= lead <= 0xEF:
        num = 3
        if lead == 0xE0:
            low = 0xA0
        elif lead == 0xED:
            high = 0x9F
    elif 0xF0 <= lead <= 0xF4:
        num = 4
        if lead == 0xF0:
            low = 0x90
        elif lead == 0xF4:
            high = 0x8F
    else:
        return 0
    if i + num > stop or block[i + 1] < low or block[i + 1] > high:
        return 0
    for k in range(i + 2, i + num):
        if block[k] < 0x80 or block[k] > 0xBF:
            return 0
    return num


@njit(int64(_BYTES, int64, int64, _DIALECT), cache=True, nogil=True)
def check_line(block: NDArray[np.uint8], start: int, stop: int, dialect: Dialect) -> int:
    """The code of the line block[start:stop] without its line end."""
    if stop - start > MAX_LINE_LEN:
        return LINE_MALFORMED
    delimiter, quote, num_fields, over_lines = dialect
    delimiter_len = delimiter.shape[0]
    code = LINE_GOOD
    fields = 1
    quoted = False
    at_start = True  # of a field
    closed = False  # the previous byte closed a quoted field
    i = start
    while i < stop:
        byte = block[i]
        if byte >= 0x80:
            num = utf8_sequence_len(block, i, stop)
            if num == 0:
                return LINE_INVALID_UTF8
            if closed:
                code = LINE_MALFORMED
            at_start = closed = False
            i += num
            continue
        if byte == _CR and not (quoted and over_lines):
            code = LINE_MALFORMED
        if quoted:
            if byte == quote:
                if i + 1 < stop and block[i + 1] == quote:
                    i += 1
                else:
                    quoted = False
                    closed = True
        elif byte == delimiter[0] and (delimiter_len == 1 or (i + 1 < stop and block[i + 1] == delimiter[1])):
            fields += 1
            i += delimiter_len
            at_start = True
            closed = False
            continue
        elif byte == quote and at_start:
            quoted = True
        elif closed:
            code = LINE_MALFORMED
        at_start = False
        i += 1
    if quoted or fields != num_fields:
        return LINE_MALFORMED
    return code


@njit(int64(_BYTES, int64, int64, _DIALECT, _BYTES), cache=True, nogil=True)
def check_repaired(block: NDArray[np.uint8], start: int, stop: int, dialect: Dialect, needed: NDArray[np.uint8]) -> int:
    """The code of a line with bytes that are not UTF-8: that of the line without them if they stand in unneeded fields.

    `needed` is 1 for the fields that are read: (num_fields,). Apart from `check_line`, which a second array slows down
    by a fifth.
    """
    line = block[start:stop].copy()
    field = 0
    quoted = False
    may_open = True  # at the start of a field, and after a quote that closed it, which then was the first of two
    i = 0
    while i < line.shape[0]:
        byte = line[i]
        sequence_len = utf8_sequence_len(line, i, line.shape[0])
        if sequence_len == 0:
            if field >= dialect.num_fields or needed[field]:
                return LINE_INVALID_UTF8
            line[i] = _QUESTION_MARK
            sequence_len = 1
        if quoted:
            quoted = byte != dialect.quote
            may_open = not quoted
        elif byte == dialect.quote and may_open:
            quoted = True
        else:
            at_delimiter = byte == dialect.delimiter[0]
            if at_delimiter and dialect.delimiter.shape[0] == 2:
                at_delimiter = i + 1 < line.shape[0] and line[i + 1] == dialect.delimiter[1]
                sequence_len += at_delimiter
            field += at_delimiter
            may_open = at_delimiter
        i += sequence_len
    code = check_line(line, 0, line.shape[0], dialect)
    return LINE_REPAIRED if code == LINE_GOOD else code


@njit(int64(_BYTES, _DIALECT, _BYTES, _LINES), cache=True, nogil=True)
def scan_lines(block: NDArray[np.uint8], dialect: Dialect, needed: NDArray[np.uint8], out: Lines) -> int:
    """Fills `out` with the lines of `block`. `needed` is 1 for the fields that are read: (num_fields,).

    Lines end with LF or CRLF; the last one may end with the block. Returns their number, at most line feeds + 1.
    """
    starts, stops, codes = out
    num = 0
    start = 0
    while start < block.shape[0]:
        end = start
        while end < block.shape[0] and block[end] != _LF:
            end += 1
        stop = end
        if stop > start and block[stop - 1] == _CR:
            stop -= 1
        starts[num] = start
        stops[num] = stop
        codes[num] = check_line(block, start, stop, dialect)
        if codes[num] == LINE_INVALID_UTF8:
            codes[num] = check_repaired(block, start, stop, dialect, needed)
        num += 1
        start = end + 1
    return num


@njit(int64(_BYTES, _LINES, _BYTES), cache=True, nogil=True)
def gather_lines(block: NDArray[np.uint8], lines: Lines, out: NDArray[np.uint8]) -> int:
    """Copies the good and the repaired lines of `block` to `out`, each with LF as its end. Returns the bytes written.

    Bytes that are not UTF-8 become question marks. `out` must have room for all lines and one more byte for each.
    """
    starts, stops, codes = lines
    num = 0
    for line in range(starts.shape[0]):
        if codes[line] != LINE_GOOD and codes[line] != LINE_REPAIRED:
            continue
        first = num
        for i in range(starts[line], stops[line]):
            out[num] = block[i]
            num += 1
        if codes[line] == LINE_REPAIRED:
            i = first
            while i < num:
                sequence_len = utf8_sequence_len(out, i, num)
                if sequence_len == 0:
                    out[i] = _QUESTION_MARK
                i += max(1, sequence_len)
        out[num] = _LF
        num += 1
    return num
