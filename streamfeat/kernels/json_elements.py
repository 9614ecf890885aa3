"""Cuts a JSON array, or JSON values one after the other, into the texts of its elements."""

import numpy as np
from numba import int64, njit, types, uint8
from numpy.typing import NDArray

from streamfeat.kernels.lines import (
    LINE_GOOD,
    LINE_INVALID_UTF8,
    LINE_MALFORMED,
    MAX_LINE_LEN,
    Lines,
    utf8_sequence_len,
)

_BYTES = uint8[::1]
_LINES = types.BaseTuple.from_types([int64[::1], int64[::1], _BYTES], Lines)

_TAB, _LF, _CR, _SPACE = 9, 10, 13, 32
_QUOTE, _COMMA, _OPEN_LIST, _BACKSLASH, _CLOSE_LIST, _OPEN, _CLOSE = 34, 44, 91, 92, 93, 123, 125


@njit(int64(_BYTES, int64, _LINES), cache=True, nogil=True)
def scan_elements(block: NDArray[np.uint8], is_last: int, out: Lines) -> int:
    """Fills `out` with the finished elements of `block`, which begins inside no element. Returns their number.

    An element is an object or a list up to its closing bracket, or anything else up to a comma or a bracket. Commas,
    white space and closing brackets between elements are passed over. Whether an element is JSON is not checked; one
    that is too long, or that the end of the last block cuts off, is malformed. out.starts gets one place more: where
    the unfinished element begins, or the end of the block. `out` has room for commas + closing brackets + 2.
    """
    starts, stops, codes = out
    num = 0
    start = -1  # of the element; -1 between elements
    depth = 0
    in_text = False
    code = LINE_GOOD
    i = 0
    while i < block.shape[0]:
        byte = block[i]
        stop = -1
        if start < 0:
            if byte in (_SPACE, _LF, _CR, _TAB, _COMMA, _CLOSE_LIST, _CLOSE):
                i += 1
                continue
            start = i
            depth = 0
            in_text = False
            code = LINE_GOOD
        if byte >= 0x80:
            num_bytes = utf8_sequence_len(block, i, block.shape[0])
            if num_bytes == 0:
                code = LINE_INVALID_UTF8
                num_bytes = 1
            i += num_bytes
            continue
        if in_text:
            if byte == _BACKSLASH:
                i += 1
            elif byte == _QUOTE:
                in_text = False
        elif byte == _QUOTE:
            in_text = True
        elif byte in (_OPEN, _OPEN_LIST):
            depth += 1
        elif byte in (_CLOSE, _CLOSE_LIST):
            depth -= 1
            if depth <= 0:
                stop = i + 1 if depth == 0 else i
        elif byte == _COMMA and depth == 0:
            stop = i
        i += 1
        if stop >= 0:
            starts[num] = start
            stops[num] = stop
            codes[num] = code if stop - start <= MAX_LINE_LEN else LINE_MALFORMED
            num += 1
            start = -1
    if start >= 0 and is_last:
        starts[num] = start
        stops[num] = block.shape[0]
        codes[num] = LINE_MALFORMED
        num += 1
        start = -1
    starts[num] = start if start >= 0 else block.shape[0]
    return num
