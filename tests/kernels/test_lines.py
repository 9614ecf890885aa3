"""Lines of delimited text: the kernels against their naive twins."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_lines import line_code, lines_of

from streamfeat.kernels.lines import (
    LINE_GOOD,
    LINE_MALFORMED,
    MAX_LINE_LEN,
    NO_QUOTE,
    Dialect,
    Lines,
    check_line,
    gather_lines,
    scan_lines,
    utf8_sequence_len,
)

# Few bytes, so that delimiters, quotes, line ends and broken UTF-8 meet often.
PIECES = [
    b"a",
    b"7",
    b",",
    b":",
    b"::",
    b'"',
    b'""',
    b"\r",
    b"\n",
    b"\r\n",
    "é".encode(),
    "😀".encode(),
    b"\xff",
    b"\xe9",
]
blocks = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)


def array_of(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)  # kernels take writable arrays


def scan(block: bytes, delimiter: str, quote: str, num_fields: int) -> Lines:
    num = block.count(b"\n") + 1
    lines = Lines(np.empty(num, np.int64), np.empty(num, np.int64), np.empty(num, np.uint8))
    dialect = Dialect(array_of(delimiter.encode()), ord(quote) if quote else NO_QUOTE, num_fields)
    num = scan_lines(array_of(block), dialect, np.ones(num_fields, np.uint8), lines)
    return lines.part(0, num)


@settings(max_examples=400)
@given(blocks, st.sampled_from([",", "::"]), st.sampled_from(['"', ""]), st.integers(1, 4))
@example(b'1,"2,3\n4,5,6\n', ",", '"', 3)
@example(b"1:::2::3\r\n", "::", "", 3)
@example(b'"a" ,b\n', ",", '"', 2)
def test_lines_and_their_codes_are_those_of_a_parser_of_one_line(block, delimiter, quote, num_fields):
    """A row is one physical line; it is good where it is UTF-8 with closed quotes and the number of fields."""
    starts, stops, codes = scan(block, delimiter, quote, num_fields)
    lines = [block[a:b] for a, b in zip(starts, stops, strict=True)]
    assert lines == lines_of(block)
    assert codes.tolist() == [line_code(line, delimiter, quote, num_fields) for line in lines]


@settings(max_examples=100)
@given(blocks)
def test_the_good_lines_are_copied_whole_and_in_order(block):
    """What the CSV parser sees: every good line, ended by one LF, and nothing else."""
    lines = scan(block, ",", '"', 2)
    out = np.full(len(block) + len(lines.starts) + 1, 255, np.uint8)
    num = gather_lines(array_of(block), lines, out)
    good = [line for line in lines_of(block) if line_code(line, ",", '"', 2) == LINE_GOOD]
    assert out[:num].tobytes() == b"".join(line + b"\n" for line in good)
    assert (out[num:] == 255).all()


@settings(max_examples=400)
@given(st.binary(min_size=1, max_size=4))
@example(b"\xed\xa0\x80")  # a surrogate
@example(b"\xc0\xaf")  # overlong
@example(b"\xf4\x90\x80\x80")  # above U+10FFFF
@example(b"\xe2\x82")  # cut short
def test_a_utf8_sequence_is_what_python_decodes(data):
    """The same bytes are valid UTF-8 for the kernel and for Python's decoder."""
    expected = 0
    for num in range(1, len(data) + 1):
        try:
            data[:num].decode("utf-8")
        except UnicodeDecodeError:
            continue
        expected = num
        break
    assert utf8_sequence_len(array_of(data), 0, len(data)) == expected


@pytest.mark.parametrize(("extra", "code"), [(0, LINE_GOOD), (1, LINE_MALFORMED)])
def test_a_line_above_the_cap_is_malformed(extra, code):
    """Memory is bounded: a line longer than MAX_LINE_LEN bytes is no row."""
    block = np.full(MAX_LINE_LEN + extra, ord("x"), np.uint8)
    assert check_line(block, 0, len(block), Dialect(array_of(b","), NO_QUOTE, 1)) == code
