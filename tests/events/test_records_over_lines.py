"""Quoted fields with line breaks: a record is one row in every split; quotes that cannot be believed join no lines."""

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from read_all import Read, read_all

from streamfeat.builder.coordinator import build_steps
from streamfeat.config import BuildConfig
from streamfeat.events.user_histories import read_histories
from streamfeat.kernels.lines import MAX_LINE_LEN
from streamfeat.progress import Note

HEADER = "user,review,item,title,timestamp\n"
NOTE = "one line is one row: "


def reviews(texts: list[str], end: str = "\n") -> str:
    out = io.StringIO()
    rows = [[f"u{i % 3}", text, f"i{i}", text, 1_500_000_000 + i] for i, text in enumerate(texts)]
    # The writer leaves carriage returns without quotes.
    quoting = csv.QUOTE_ALL if any("\r" in text for text in texts) else csv.QUOTE_MINIMAL
    csv.writer(out, lineterminator=end, quoting=quoting).writerows(rows)
    return HEADER + out.getvalue()


def read_text(text: str | bytes, **options: int) -> Read:
    """`read_all` for examples of Hypothesis, which cannot use tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "reviews.csv")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_all(path, **options)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(st.sampled_from('ab ,"\n\ré'), max_size=12), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 9),
    st.integers(1, 9),
)
@example(['one\n\n"two", three', "", "four\r\n"], "\r\n", 1, 1)
def test_a_review_with_line_breaks_is_one_row_in_any_split(texts, end, rows_per_split, batch_rows):
    """What a CSV writer wrote comes back, every byte of the titles; rows are counted in records."""
    read = read_text(reviews([*texts, "a\n,b\n"], end), rows_per_split=rows_per_split, batch_rows=batch_rows)
    assert (read.rejected, read.num_rows) == ([], len(texts) + 1)
    assert [row.title or "" for row in read.rows] == [*texts, "a\n,b\n"]
    assert [row.item for row in read.rows] == [f"i{i}" for i in range(len(texts) + 1)]


def test_bad_records_have_their_number_and_cost_no_other(tmp_path):
    """Too few columns, or a time that is none, among records of several lines. The header is record 1."""
    text = reviews(["one\ntwo", "three\n\nfour", "five"])
    text += 'u,"a\nb",i,t,soon\nu,i,1500000000\nu,x,i9,t,1500000009\n'
    path = tmp_path / "reviews.csv"
    path.write_text(text)
    for rows_per_split in (1, 2, 9):
        read = read_all(path, rows_per_split=rows_per_split)
        assert read.reasons == [(5, "unparsable_time"), (6, "malformed_line")]
        assert [row.item for row in read.rows] == ["i0", "i1", "i2", "i9"]


def plain(first: int, num: int) -> str:
    return "".join(f"u,r,p{i},t,{1_500_000_000 + i}\n" for i in range(first, first + num))


def test_a_stray_quote_joins_no_lines(tmp_path):
    """Whatever stands around it: text follows, no quote closes it, or the next one is far below."""
    path = tmp_path / "a.csv"
    for stray, doubt in (
        ('u,"r" s,x,t,1500000000\n', "a quote that closes in line 5 is followed by text"),
        ('u,"r,x,t,1500000000\n', "the quote that opens in line 5 does not close"),
        (
            'u,"r,x,t,1500000000\n' + plain(9, 2) + 'u,r",x,y,t,1500000000\n',
            "lines 5 to 8 would make a row of 6 columns",
        ),
        ('u,"r,x,t,1500000000\n' + plain(9, 2) + 'u,r",x,t,1500000000\n', "its quotes would join lines that are rows"),
        ('u,"r,x,t,1500000000\nu,r",x,t,1500000000\n', "its quotes would join lines that are rows"),
    ):
        path.write_text(HEADER + plain(0, 3) + stray + plain(3, 3))
        read = read_all(path, rows_per_split=2)
        assert {f"p{i}" for i in range(6)} <= {row.item for row in read.rows}, stray
        assert read.num_rows == 6 + stray.count("\n")
        history = read_histories(path, BuildConfig(), medium="film")
        assert f"{NOTE}" in history.recognised
        assert doubt in history.recognised


def test_one_bad_quote_makes_every_line_a_row_and_the_build_says_so(tmp_path):
    """Lines of reviews are rejected then; no row beside them is lost."""
    (tmp_path / "a.csv").write_text(reviews(["one\ntwo"]) + plain(0, 9) + 'u,"a" b,i,t,1500000000\n')
    config = BuildConfig(max_rejected=0.5)
    notes = [step.text for step in build_steps([str(tmp_path / "a.csv")], tmp_path / "data", config)
             if isinstance(step, Note)]  # fmt: skip
    assert [note.partition(NOTE)[2] for note in notes if NOTE in note] == [
        "a quote that closes in line 14 is followed by text"
    ]
    assert len(read_all(tmp_path / "a.csv").rows) == 9


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_the_delimiter_may_be_another(tmp_path, delimiter):
    """Also a tab, where no line has a whole quoted field: a spreadsheet's "Unicode text" is UTF-16 with tabs."""
    rows = [
        ["user", "review", "item", "timestamp"],
        *([f"u{i}", f'"a\n{i}"', f"i{i}", str(15 * 10**8)] for i in range(9)),
    ]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "a.txt").write_bytes(text.encode(encoding))
        read = read_all(tmp_path / "a.txt", rows_per_split=4)
        assert ([row.item for row in read.rows], read.rejected) == ([f"i{i}" for i in range(9)], [])


def test_a_tab_file_with_stray_quotes_has_no_quotes(tmp_path):
    """They are characters of its ids."""
    lines = ['u\t"i\t1500000000', "v\tj\t1500000001", 'w\tk"\t1500000002']
    (tmp_path / "a.tsv").write_text("user\titem\ttimestamp\n" + "\n".join(lines) + "\n")
    assert [row.item for row in read_all(tmp_path / "a.tsv").rows] == ['"i', "j", 'k"']


def test_a_quote_that_closes_too_late_is_not_believed():
    """Memory is bounded: no record is longer than a line may be."""
    read = read_text(HEADER + 'u,"r\n' + "x" * (MAX_LINE_LEN + 1) + '",i,t,1500000000\n' + plain(0, 2))
    assert [row.item for row in read.rows] == ["p0", "p1"]


def test_bytes_outside_utf8_in_columns_that_nobody_needs_do_not_matter(tmp_path):
    """A review in Latin-1, also over lines; in a needed column they cost their row."""
    text = reviews(["café\n", "thé", "x"]).replace('café\n",i0,"café', 'café\n",i0,"c')
    data = text.replace("thé,i1,thé", "thé,i1,t").encode("latin-1")
    read = read_text(data)
    assert ([row.item for row in read.rows], read.rejected) == (["i0", "i1", "i2"], [])
    assert "encoding" not in read.source.note
    read = read_text(data.replace(b"i1", b"\xe9"))
    assert read.reasons == [(3, "invalid_utf8")]


@pytest.mark.parametrize("quoted", [True, False])
def test_a_header_over_lines_is_one_row(tmp_path, quoted):
    """Spreadsheets have such headers."""
    header = 'user,item,timestamp,"my\nreview"\n' if quoted else "user,item,timestamp,my review\n"
    (tmp_path / "a.csv").write_text(header + "u,i,soon,r\nu,j,1500000000,r\n")
    read = read_all(tmp_path / "a.csv")
    assert (read.reasons, [row.item for row in read.rows]) == ([(2, "unparsable_time")], ["j"])
