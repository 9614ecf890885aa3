"""Every row is read exactly once: as an event with unchanged ids, or rejected with its place and reason."""

import csv
import io
import math
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_all import Read, Row
from read_all import read_all as read_file
from reference_lines import GOOD, line_code, lines_of, record_code, records_of

from streamfeat.config import BuildConfig
from streamfeat.errors import DataError
from streamfeat.events.event_reader import read_batches
from streamfeat.events.formats import recognise
from streamfeat.events.splits import plan_splits
from streamfeat.kernels.lines import MAX_LINE_LEN

IDS = [
    "0", "-1", "7", "007", "1.0", "12.7", "1e3", "1_000", "0x1F", "+5", "-0", "-7", " 3", "３", "nulls", "Nan", "9:",
    str(2**31), str(-(2**31)), str(2**53 + 1), str(2**63 - 1), str(-(2**63)), str(2**63), str(2**64), "9" * 40,
    'Fullmetal, "Alchemist"', "鋼の錬金術師", "é", "e\u0301", "😀", "\u2028", "a\tb", "\x00x", "=cmd", "'", "\\", "#1",
    "a" * 10_000, ":",
]  # fmt: skip


def read_all(path: Path, **options: object) -> Read:
    """Reads a file whose times are small numbers: seconds, because nothing here is about times."""
    return read_file(path, **{"time_unit": "s", **options})


def in_folder(data: bytes, name: str, **options: object) -> Read:
    """`read_all` for examples of Hypothesis, which cannot use tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(data)
        return read_all(Path(folder) / name, **options)


def csv_bytes(rows: list[list[str]], header: str = "user,item,timestamp,rating") -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return (header + "\n" + text.getvalue()).encode()


def parquet_bytes(**columns: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_ids_of_any_kind_keep_every_byte():
    """Leading zeros, floats as text, 64-bit extremes and beyond, unicode: the same for CSV and Parquet."""
    rows = [[value, value, "5", ""] for value in IDS]
    for read in (
        in_folder(csv_bytes(rows), "a.csv"),
        in_folder(parquet_bytes(user=IDS, item=IDS, timestamp=[5] * len(IDS)), "a.parquet"),
    ):
        assert [row.user for row in read.rows] == IDS
        assert [row.item for row in read.rows] == IDS
        assert read.rejected == []


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_text_is_an_id(values):
    """Every text that fits in a line is read back exactly."""
    read = in_folder(csv_bytes([[value, "i", "5", ""] for value in values]), "a.csv")
    assert [row.user for row in read.rows] == values


def test_a_number_comes_as_number_only_where_that_is_exact(tmp_path):
    """`number` is valid if the id is the canonical decimal of an int64. If all are, there is no text."""
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes([["7", "7", "5", ""], ["07", "-7", "5", ""], [str(2**63), "0", "5", ""]]))
    (batch,) = read_batches(plan_splits([recognise(str(path), BuildConfig(time_unit="s"))])[0], tmp_path, "item")
    assert batch.user.text.to_pylist() == [None, "07", str(2**63)]
    assert batch.user.number.tolist() == [7, 0, 0]
    assert batch.item.text is None
    assert batch.item.number.tolist() == [7, -7, 0]
    assert (batch.user.number.dtype, batch.medium.dtype, batch.time.dtype) == ("int64", "int32", "int64")
    assert (batch.rating.dtype, batch.status.dtype, batch.completion.dtype) == ("float32", "uint8", "float32")


def test_parquet_numbers_outside_int64_are_text():
    """uint64 beyond 2^63 - 1 keeps its digits. Floats with a fraction are text; those without are whole numbers."""
    big = pa.array([2**64 - 1, 2**63, 2**63 - 1, 5, None], pa.uint64())
    read = in_folder(
        parquet_bytes(user=big, item=pa.array([1.0, 0.1, 2.0, math.nan, 1.0]), timestamp=[1] * 5), "a.parquet"
    )
    assert [row.user for row in read.rows] == [str(2**64 - 1), str(2**63), str(2**63 - 1)]
    assert [row.item for row in read.rows] == ["1", "0.1", "2"]
    assert read.reasons == [(4, "missing_item"), (5, "missing_user")]


BAD = {  # reason: (user, item, medium, timestamp, rating, status, completion), value
    "missing_user": (("", "1", "anime", "5", "1", "", ""), ""),
    "missing_item": (("u", "", "anime", "5", "1", "", ""), ""),
    "missing_time": (("u", "1", "anime", "", "1", "", ""), ""),
    "unparsable_time": (("u", "1", "anime", "soon", "1", "", ""), "soon"),
    "negative_time": (("u", "1", "anime", "-5", "1", "", ""), "-5"),
    "time_out_of_range": (("u", "1", "anime", "9" * 13, "1", "", ""), "9" * 13),
    "unparsable_rating": (("u", "1", "anime", "5", "good", "", ""), "good"),
    "non_finite_rating": (("u", "1", "anime", "5", "1e400", "", ""), "1e400"),
    "bad_completion": (("u", "1", "anime", "5", "1", "", "1.5"), "1.5"),
    "empty_medium": (("u", "1", "", "5", "1", "", ""), ""),
    "bad_medium": (("u", "1", "light novel", "5", "1", "", ""), "light novel"),
    "unknown_status": (("u", "1", "anime", "5", "1", "binged", ""), "binged"),
}
GOOD_ROW = ("u", "1", "Anime", "1365029107", "7", "ON_HOLD", "0.5")
FULL_HEADER = "user,item,medium,timestamp,rating,status,completion"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_each_bad_row_is_rejected_with_row_reason_and_value(suffix):
    """The rows around stay, and the bad one is listed; lines are counted from the header."""
    rows = [GOOD_ROW]
    for bad, _ in BAD.values():
        rows += [bad, GOOD_ROW]
    if suffix == "csv":
        read = in_folder(csv_bytes([list(row) for row in rows], FULL_HEADER), "a.csv", time_unit="s")
    else:
        columns = {name: [row[i] or None for row in rows] for i, name in enumerate(FULL_HEADER.split(","))}
        read = in_folder(parquet_bytes(**columns), "a.parquet", time_unit="s")
    first = 3 if suffix == "csv" else 2
    assert [(r.row, r.reason, r.value) for r in read.rejected] == [
        (first + 2 * i, reason, value) for i, (reason, (_, value)) in enumerate(BAD.items())
    ]
    assert read.rows == [Row("u", "1", 1365029107, 7.0, "anime", "on_hold", 0.5)] * (len(BAD) + 1)


@pytest.mark.parametrize("rating", ["inf", "-inf", "1e400", "3.5e38", "infinity"])
def test_ratings_that_are_not_finite_in_float32_are_rejected(rating):
    """Infinity never becomes an input of a model."""
    assert in_folder(csv_bytes([["u", "i", "5", rating]]), "a.csv").reasons == [(2, "non_finite_rating")]


@pytest.mark.parametrize("rating", ["1_0", "0x10", "7,5", "7 stars", "--1", "-nan"])
def test_ratings_that_are_no_plain_number_are_rejected(rating):
    """Also those that DuckDB would accept."""
    assert in_folder(csv_bytes([["u", "i", "5", rating]]), "a.csv").reasons == [(2, "unparsable_rating")]


def test_typed_parquet_columns_are_judged_as_text_is():
    """NaN and infinity, integers and decimals as ratings; statuses as numbers; nulls and NaN are missing values."""
    rating = pa.array([math.nan, math.inf, None, 1e300, 2.5])
    status = pa.array([0, 4, None, 5, 2], pa.int8())
    data = parquet_bytes(user=[1] * 5, item=[1] * 5, timestamp=[5] * 5, rating=rating, status=status)
    read = in_folder(data, "a.parquet")
    assert read.reasons == [(2, "non_finite_rating"), (4, "non_finite_rating")]
    assert read.rows == [Row("1", "1", 5, status="planned"), Row("1", "1", 5), Row("1", "1", 5, 2.5)]
    decimals = pa.array(["7.5", "8"]).cast(pa.decimal128(5, 2))
    status = pa.array([0.0, None, 4.0])
    decimals = pa.concat_arrays([decimals, decimals.slice(0, 1)])
    data = parquet_bytes(user=[1] * 3, item=[1] * 3, timestamp=[5] * 3, rating=decimals, status=status)
    assert in_folder(data, "a.parquet").rows == [
        Row("1", "1", 5, 7.5, status="planned"),
        Row("1", "1", 5, 8.0),
        Row("1", "1", 5, 7.5, status="dropped"),
    ]


@pytest.mark.parametrize("kind", ["dictionary", "plain"])
def test_labels_of_parquet_are_the_same_as_dictionary_and_as_text(kind):
    """Media and statuses in any case, nulls and bad values among them."""
    medium = pa.array(["Anime", "manga", None, "", "a b", "manga"])
    status = pa.array(["PLANNED", None, "planned", "2", "planned", "no"])
    if kind == "dictionary":
        medium, status = medium.dictionary_encode(), status.dictionary_encode()
    data = parquet_bytes(user=[1] * 6, item=[1] * 6, timestamp=[5] * 6, medium=medium, status=status)
    read = in_folder(data, "a.parquet")
    assert read.rows == [Row("1", "1", 5, None, "anime", "planned"), Row("1", "1", 5, None, "manga")]
    assert read.reasons == [(3, "empty_medium"), (4, "empty_medium"), (5, "bad_medium"), (6, "unknown_status")]


def test_invalid_utf8_in_parquet_is_rejected_row_by_row():
    """Parquet declares text as UTF-8, but writers may not obey."""
    raw = pa.array([b"ok", b"\xff\xfe", b"also"], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    read = in_folder(parquet_bytes(user=text, item=["1", "2", ""], timestamp=[5] * 3), "a.parquet")
    assert read.reasons == [(2, "invalid_utf8"), (3, "missing_item")]
    assert [row.user for row in read.rows] == ["ok"]


@pytest.mark.parametrize("role", ["timestamp", "medium", "status", "title"])
@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_invalid_utf8_is_a_bad_row_in_every_role(role, kind):
    """Also in columns that are looked up first, or are dictionaries."""
    good = {"timestamp": b"1300000000", "medium": b"anime", "status": b"dropped", "title": b"ok"}[role]
    binary = {"string": pa.binary(), "large_string": pa.large_binary(), "string_view": pa.binary_view()}[kind]
    text = pa.array([good, good, good, b"\xff"], binary).view(getattr(pa, kind)())
    columns = {"user": ["u"] * 4, "item": ["1", "2", "3", "4"], "timestamp": [1_300_000_000] * 4, role: text}
    read = in_folder(parquet_bytes(**columns), "a.parquet")
    assert read.reasons == [(4, "invalid_utf8")]
    assert [row.time for row in read.rows] == [1_300_000_000] * 3
    if role != "timestamp":
        assert {getattr(row, role) for row in read.rows} == {good.decode()}


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("name", ["a.csv", "ratings.dat"])
def test_a_stray_quote_costs_its_own_line_at_most(name, column):
    """An unclosed quote does not change the following rows. In formats without quotes it is a character."""
    delimiter = "," if name == "a.csv" else "::"
    lines = [["1", "2", "3", "1365029107"] for _ in range(9)]
    lines[4][column] = '"' + lines[4][column]
    body = "".join(delimiter.join(line) + "\n" for line in lines)
    read = in_folder((("user,item,rating,timestamp\n" if name == "a.csv" else "") + body).encode(), name)
    row = 6 if name == "a.csv" else 5
    reason = "malformed_line" if name == "a.csv" else [None, None, "unparsable_rating", "unparsable_time"][column]
    assert read.reasons == ([(row, reason)] if reason else [])
    assert len(read.rows) == (8 if reason else 9)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,2,3", "malformed_line"), (b"1,2,3,4,5", "malformed_line"), (b"", "malformed_line"),
        (b'1,"2"x,3,4', "malformed_line"), (b"1,a\rb,3,4", "malformed_line"), (b"1,\xff,3,4", "invalid_utf8"),
        (b"1,\xed\xa0\x80,3,4", "invalid_utf8"), (b"1," + b"x" * (3 * MAX_LINE_LEN) + b",3,4", "malformed_line"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_row_is_rejected_alone(line, reason):
    """Wrong number of fields, unclosed quote, broken UTF-8, far too long: the lines around it stay, and the value is
    shown."""
    data = b"user,item,rating,timestamp\n1,2,3,1365029107\n" + line + b"\n2,2,3,1365029108\n"
    read = in_folder(data, "a.csv")
    assert read.reasons == [(3, reason)]
    assert [row.user for row in read.rows] == ["1", "2"]
    assert read.rejected[0].value == line[:80].decode("utf-8", "backslashreplace")


PIECES = [
    b"1",
    b"22",
    b",",
    b",",
    b",",
    b'"',
    b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    "é".encode(),
    b"\xff",
    b"1,2,3\n",
    b"x,y,1\n",
]


@settings(max_examples=20)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join), st.integers(1, 9), st.integers(1, 9))
def test_kept_and_rejected_are_the_lines_or_records_for_any_bytes(body, rows_per_split, batch_rows):
    """No row is lost, doubled or has a wrong number, for any cut into splits and batches. A row is a line, or a record
    where the file's quotes allow line breaks in it."""
    data = b"user,item,timestamp\n7,8,9\n" + body
    read = in_folder(data, "a.csv", rows_per_split=rows_per_split, batch_rows=batch_rows)
    records = records_of(data, 3)
    lines = lines_of(data) if records is None else records
    while not lines[-1].strip(b"\r"):
        lines.pop()
    assert read.num_rows == len(read.rows) + len(read.rejected) == len(lines) - 1
    codes = [line_code(row, ",", '"', 3) if records is None else record_code(row, 3, [1, 1, 1]) for row in lines]
    expected = [i + 1 for i, code in enumerate(codes) if i and code != GOOD]
    # Bare carriage returns at the very end of a file count as line end.
    if lines[-1].endswith(b"\r"):
        return
    assert [r.row for r in read.rejected if r.reason in ("malformed_line", "invalid_utf8")] == expected
    whole = in_folder(data, "a.csv")
    assert (read.rows, read.rejected) == (whole.rows, whole.rejected)


@pytest.mark.parametrize("name", ["events.csv", "events.parquet"])
@pytest.mark.parametrize(("rows_per_split", "batch_rows"), [(7, 500), (60, 7), (100, 41), (999, 1000)])
def test_splits_and_batches_change_nothing(tmp_path, name, rows_per_split, batch_rows):
    """Rows, their order and the numbers of rejected ones are those of one split."""
    users = [str(i % 37) if i % 11 else "" for i in range(400)]
    table = pa.table({"user": users, "item": [f"i{i}" for i in range(400)], "timestamp": range(400)})
    path = tmp_path / name
    if name == "events.csv":
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        path.write_bytes(csv_bytes([list(map(str, row)) for row in rows], "user,item,timestamp"))
    else:
        pq.write_table(table, path, row_group_size=30)
    read = read_all(path, rows_per_split=rows_per_split, batch_rows=batch_rows)
    assert [row.time for row in read.rows] == [i for i in range(400) if i % 11]
    first = 2 if name == "events.csv" else 1
    assert read.reasons == [(first + i, "missing_user") for i in range(0, 400, 11)]
    assert [row.item for row in read.rows] == [f"i{i}" for i in range(400) if i % 11]


def test_splits_hold_about_the_rows_asked_for(tmp_path):
    """Text is cut at whole lines, Parquet at row groups, gzip not at all."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,timestamp\n" + "1,2,3\n" * 25)
    splits = plan_splits([recognise(str(path), BuildConfig(time_unit="s"))], 10)
    assert [(s.num_rows, s.first_row) for s in splits] == [(10, 2), (10, 12), (5, 22)]
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"user": [1] * 25, "item": [1] * 25, "timestamp": [1] * 25}), parquet, row_group_size=4)
    sources = [recognise(str(path), BuildConfig(time_unit="s")), recognise(str(parquet), BuildConfig(time_unit="s"))]
    splits = plan_splits(sources, 10)
    assert [s.number for s in splits] == list(range(6))
    assert [(s.num_rows, s.first_row, s.first_row_group, s.num_row_groups) for s in splits[3:]] == [
        (8, 1, 0, 2), (8, 9, 2, 2), (9, 17, 4, 3),
    ]  # fmt: skip


def test_a_file_that_changed_since_it_was_planned_is_an_error(tmp_path):
    """A file that is shorter or has other lines is always noticed."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,timestamp\n" + "1,2,3\n" * 25)
    (split,) = plan_splits([recognise(str(path), BuildConfig(time_unit="s"))])
    for text in ("1,2,3\n" * 9, "user,item,timestamp\n" + "1,2,33333333333\n" * 25):
        path.write_text(text)
        with pytest.raises(DataError, match="do not change the file"):
            list(read_batches(split, tmp_path, "item"))


def test_the_temporary_file_is_gone_whatever_happens(tmp_path):
    """At the end, and when reading is stopped early; the folder may have any name."""
    scratch = tmp_path / "it's a [folder] *"
    scratch.mkdir()
    path = tmp_path / "a.csv"
    path.write_text("user,item,timestamp\n" + "1,2,3\n" * 25)
    assert len(read_all(path, scratch=scratch).rows) == 25
    (split,) = plan_splits([recognise(str(path), BuildConfig(time_unit="s"))])
    batches = read_batches(split, scratch, "item", batch_rows=5)
    next(batches)
    assert list(scratch.iterdir()) != []
    batches.close()
    assert list(scratch.iterdir()) == []


def test_the_default_medium_is_the_callers(tmp_path):
    """Events of a source without a medium column get the medium that the build gives."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,timestamp\n1,2,3\n")
    (split,) = plan_splits([recognise(str(path), BuildConfig(time_unit="s"))])
    (batch,) = read_batches(split, tmp_path, "film")
    assert (batch.media, batch.medium.tolist()) == (("film",), [0])
