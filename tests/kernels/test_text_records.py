"""Records over several lines: the kernels against their naive twins, for any cut into blocks."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_lines import INVALID_UTF8, MALFORMED, is_utf8, lines_of, record_code, records_of

from streamfeat.events import row_counts
from streamfeat.events.source import Source
from streamfeat.kernels.lines import Dialect, Lines, gather_lines, scan_lines
from streamfeat.kernels.records import scan_records

PIECES = [b"a", b",", b",", b'"', b'"', b'""', b"\n", b"\r\n", b"\r", "é".encode(), b"\xff", b'"b\nc"', b"1,2,3\n",
          b'4,"5\n",6\n', b'7,"8,\n9",0\r\n']  # fmt: skip
files = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map(b"".join)


def source_of(path: Path) -> Source:
    names = ("user", "item", "timestamp")
    return Source(path=str(path), format="csv", columns=dict(zip(names, names, strict=True)), column_names=names,
                  time_unit="s", note="", delimiter=",", quote='"', header=False)  # fmt: skip


def counted(data: bytes, first: int, every: int, block_bytes: int) -> row_counts.RowCount:
    """`count_rows` with small blocks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        path.write_bytes(data)
        was = row_counts._BLOCK_BYTES
        row_counts._BLOCK_BYTES = block_bytes
        try:
            return row_counts.count_rows(source_of(path), first, every)
        finally:
            row_counts._BLOCK_BYTES = was


@settings(max_examples=400, deadline=None)
@given(files, st.integers(0, 3), st.integers(1, 4), st.integers(1, 40))
@example(b'1,"2\n\n",3\n4,5,6\n', 1, 1, 3)
@example(b'1,2\n3,"4\n5",6', 0, 1, 2)
@example(b'\xef\xbb\xbf"1\n",2,3\n', 0, 1, 4)
@example(b'1,"2,3\n4,5,6\n7,8",9\n', 0, 1, 99)
@example(b'1,"2\r\n",3\r\n4,5,6\r\n\r\n', 1, 2, 5)
def test_rows_are_records_where_the_whole_file_allows_it_and_lines_elsewhere(data, first, every, block_bytes):
    """Their number and the starts of those asked for, for any blocks; blank ones at the end are not counted."""
    count = counted(data, first, every, block_bytes)
    text = data.removeprefix(b"\xef\xbb\xbf")
    records = records_of(text, 3)
    assert count.over_lines == (records is not None)
    expected = lines_of(text) if records is None else records
    starts = [len(data) - len(text)]
    for row in expected:  # an end is LF or CRLF
        end = starts[-1] + len(row)
        starts.append(end + (2 if data[end : end + 1] == b"\r" else 1))
    while expected and not expected[-1].strip(b"\r"):
        expected.pop()
    assert count.num_rows == len(expected)
    assert count.starts == starts[: len(expected)][first::every]


@settings(max_examples=400, deadline=None)
@given(files, st.lists(st.integers(0, 1), min_size=3, max_size=3))
@example(b'1,"\xff\r\n",3\n', [1, 0, 1])
@example(b'"a,""\xff",2,3\n"\xff""",2,3\n', [0, 1, 1])
def test_records_and_their_codes_are_those_of_a_parser_of_one_record(data, needed):
    """Good where it is UTF-8 in the needed fields, with closed quotes and the number of fields. Elsewhere, bytes that
    are not UTF-8 become question marks."""
    records = records_of(data, 3)
    if records is None:
        return
    num = data.count(b"\n") + 2
    lines = Lines(np.empty(num, np.int64), np.empty(num, np.int64), np.empty(num, np.uint8))
    block = np.frombuffer(bytearray(data), np.uint8)
    dialect = Dialect(np.frombuffer(bytearray(b","), np.uint8), ord('"'), 3, 1)
    num = scan_records(block, dialect, np.array(needed, np.uint8), 1, lines)
    part = lines.part(0, num)
    assert [data[a:b] for a, b in zip(part.starts, part.stops, strict=True)] == records
    for record, code in zip(records, part.codes.tolist(), strict=True):
        expected = record_code(record, 3, needed)
        assert code == expected or (expected == MALFORMED and code == INVALID_UTF8 and not is_utf8(record))
    out = np.empty(len(data) + num, np.uint8)
    copied = out[: gather_lines(block, part, out)].tobytes()
    kept = [record for record, code in zip(records, part.codes, strict=True) if code in (0, 3)]
    assert copied == b"".join(replaced(record) + b"\n" for record in kept)


def replaced(text: bytes) -> bytes:
    return text.decode("utf-8", "surrogateescape").encode("utf-8", "replace") if not is_utf8(text) else text


@settings(max_examples=200, deadline=None)
@given(files, st.integers(1, 200))
def test_the_unfinished_record_of_a_block_is_left_for_the_next(data, cut):
    """The records of two blocks are those of the file."""
    if records_of(data, 3) is None:
        return
    dialect = Dialect(np.frombuffer(bytearray(b","), np.uint8), ord('"'), 3, 1)
    found, carry = [], b""
    for block, is_last in ((data[:cut], 0), (data[cut:], 1)):
        whole = bytearray(carry + block)
        num = whole.count(b"\n") + 2
        lines = Lines(np.empty(num, np.int64), np.empty(num, np.int64), np.empty(num, np.uint8))
        num = scan_records(np.frombuffer(whole, np.uint8), dialect, np.ones(3, np.uint8), is_last, lines)
        found += [bytes(whole[a:b]) for a, b in zip(lines.starts[:num], lines.stops[:num], strict=True)]
        carry = bytes(whole[lines.starts[num] :])
    assert (found, carry) == (records_of(data, 3), b"")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"a", b",", b'"', b'""', b"\xff", "é".encode(), b"\n"]), max_size=20).map(b"".join),
       st.lists(st.integers(0, 1), min_size=2, max_size=2))  # fmt: skip
def test_bytes_outside_utf8_in_unneeded_fields_do_not_cost_a_line(data, needed):
    """Also without records over lines; a needed field costs it."""
    num = data.count(b"\n") + 1
    lines = Lines(np.empty(num, np.int64), np.empty(num, np.int64), np.empty(num, np.uint8))
    dialect = Dialect(np.frombuffer(bytearray(b","), np.uint8), ord('"'), 2)
    num = scan_lines(np.frombuffer(bytearray(data), np.uint8), dialect, np.array(needed, np.uint8), lines)
    for line, code in zip(lines_of(data), lines.codes[:num].tolist(), strict=True):
        expected = record_code(line, 2, needed)
        assert code == expected or (expected == MALFORMED and code == INVALID_UTF8 and not is_utf8(line))
