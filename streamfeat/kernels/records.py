"""Finds the records of delimited text whose quoted fields may hold line breaks.

A record is a physical line unless a line feed stands inside a quoted field. Whether quotes are to be believed over
lines is decided for a whole file by `follow_records`, block by block; `scan_records` then cuts blocks into records.
"""

import numpy as np
from numba import int64, njit, types, uint8
from numpy.typing import NDArray

from streamfeat.kernels.lines import LINE_INVALID_UTF8, MAX_LINE_LEN, Dialect, Lines, check_line, check_repaired

# What the last byte was in its field.
_AT_START, _INSIDE, QUOTED, _CLOSED, _CLOSED_CR = range(5)

# Places in the state of `follow_records`; all are 0 before the first byte but LINES_FIT, which is 1.
PLACE = 0  # one of the above
FIELDS = 1  # delimiters of the record, outside quotes
LINE_FIELDS = 2  # delimiters of the physical line, in quotes or not
RECORD_LEN = 3  # bytes of the record
BREAKS = 4  # line feeds of the record, all in quotes
LINES_FIT = 5  # 1 if each finished line of the record has the delimiters of a row
HAS_CONTENT = 6  # 1 if the record has a byte that is no carriage return
RECORDS = 7  # finished ones
ROWS = 8  # finished ones up to the last that is not blank
LINE = 9  # line feeds
RECORD_LINE = 10  # line feeds before the record
SPANNING = 11  # finished records over several lines
ROW_LIKE = 12  # those of them whose lines all have the delimiters of a row
DOUBT = 13  # why quotes are not believed over lines; 0: they are
STATE_LEN = 14

TEXT_AFTER_QUOTE, WRONG_WIDTH, TOO_LONG = 1, 2, 3  # values of DOUBT

_LF = 10
_CR = 13

_BYTES = uint8[::1]
_NUMBERS = int64[::1]
_DIALECT = types.BaseTuple.from_types([_BYTES, int64, int64, int64], Dialect)
_LINES = types.BaseTuple.from_types([_NUMBERS, _NUMBERS, _BYTES], Lines)


@njit(int64(_BYTES, _DIALECT, _NUMBERS, int64, int64, _NUMBERS), cache=True, nogil=True)
def follow_records(
    block: NDArray[np.uint8],
    dialect: Dialect,
    state: NDArray[np.int64],
    first: int,
    every: int,
    out: NDArray[np.int64],
) -> int:
    """Reads on through a file, with `state` from the block before. Stops at the first doubt.

    Fills `out` with the places in `block` after which the records first, first + every, … (0-based) begin, and returns
    their number. `out` needs room for a place each `every` line feeds, and one more. The delimiter is one byte.
    """
    delimiter, quote, num_fields, _ = dialect
    separator = delimiter[0]
    # Locals for what changes at every byte: with the state itself, a file of quoted fields took a fifth longer.
    place, fields, line_fields = state[PLACE], state[FIELDS], state[LINE_FIELDS]
    has_content = state[HAS_CONTENT]
    start = -state[RECORD_LEN]  # of the record, in this block
    num = 0
    for i in range(block.shape[0]):
        byte = block[i]
        if byte == _LF:
            state[LINE] += 1
            if line_fields + 1 != num_fields:
                state[LINES_FIT] = 0
            line_fields = 0
            if place == QUOTED:
                state[BREAKS] += 1
                if i + 1 - start > MAX_LINE_LEN:
                    state[DOUBT] = TOO_LONG
                    break
                continue
            if state[BREAKS] > 0:
                if fields + 1 != num_fields:
                    state[DOUBT] = WRONG_WIDTH
                    break
                state[SPANNING] += 1
                state[ROW_LIKE] += state[LINES_FIT]
                state[BREAKS] = 0
            state[RECORDS] += 1
            if has_content:
                state[ROWS] = state[RECORDS]
            if state[RECORDS] >= first and (state[RECORDS] - first) % every == 0:
                out[num] = i + 1
                num += 1
            place = _AT_START
            fields = has_content = 0
            start = i + 1
            state[LINES_FIT] = 1
            state[RECORD_LINE] = state[LINE]
        elif byte == separator:
            line_fields += 1
            has_content = 1
            if place == _CLOSED_CR:
                state[DOUBT] = TEXT_AFTER_QUOTE
                break
            if place != QUOTED:
                fields += 1
                place = _AT_START
        elif byte == quote:
            has_content = 1
            if place == QUOTED:
                place = _CLOSED
            elif place in (_AT_START, _CLOSED):  # two quotes in a quoted field stand for one
                place = QUOTED
            elif place == _CLOSED_CR:
                state[DOUBT] = TEXT_AFTER_QUOTE
                break
        elif byte == _CR:
            if place == _AT_START:
                place = _INSIDE
            elif place == _CLOSED:
                place = _CLOSED_CR
            elif place == _CLOSED_CR:
                state[DOUBT] = TEXT_AFTER_QUOTE
                break
        else:
            has_content = 1
            if place == _AT_START:
                place = _INSIDE
            elif place >= _CLOSED:
                state[DOUBT] = TEXT_AFTER_QUOTE
                break
    state[PLACE], state[FIELDS], state[LINE_FIELDS] = place, fields, line_fields
    state[HAS_CONTENT] = has_content
    state[RECORD_LEN] = block.shape[0] - start
    return num


@njit(int64(_BYTES, _DIALECT, _BYTES, int64, _LINES), cache=True, nogil=True)
def scan_records(
    block: NDArray[np.uint8], dialect: Dialect, needed: NDArray[np.uint8], is_last: int, out: Lines
) -> int:
    """Fills `out` with the finished records of `block`, as `scan_lines` does with lines. Returns their number.

    `block` begins with a record. If it `is_last`, its end finishes a record. out.starts gets one place more: where the
    unfinished record begins, or the end of the block. `out` has room for line feeds + 2.
    """
    delimiter, quote = dialect.delimiter, dialect.quote
    starts, stops, codes = out
    num = 0
    start = 0
    quoted = False
    at_start = True
    i = 0
    while i <= block.shape[0]:
        if i == block.shape[0]:
            if not is_last or start == i:
                break
        elif quoted:
            if block[i] == quote:
                if i + 1 < block.shape[0] and block[i + 1] == quote:
                    i += 1
                else:
                    quoted = False
            i += 1
            continue
        elif block[i] != _LF:
            quoted = at_start and block[i] == quote
            at_start = block[i] == delimiter[0]
            i += 1
            continue
        # As in `scan_lines`. One function for both made that 1.5 times slower, with the whole of `out` twice.
        stop = i
        if stop > start and block[stop - 1] == _CR:
            stop -= 1
        starts[num] = start
        stops[num] = stop
        codes[num] = check_line(block, start, stop, dialect)
        if codes[num] == LINE_INVALID_UTF8:
            codes[num] = check_repaired(block, start, stop, dialect, needed)
        num += 1
        i += 1
        start = min(i, block.shape[0])
        at_start = True
    starts[num] = start
    return num
