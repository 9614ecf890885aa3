"""The same id is one id however it is stored, words for nobody are missing, and ratings are what they mean."""

import json
import math
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_all import read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.column_values import NOBODY
from streamfeat.events.formats import recognise
from streamfeat.events.unrated import levels_apart

TIME = 1_500_000_000


def parquet(path, **columns):
    num = len(next(iter(columns.values())))
    filled = {"user": ["u"] * num, "item": ["i"] * num, "timestamp": [TIME] * num} | columns
    pq.write_table(pa.table(filled), path)
    return path


def text(path, rows, header="user,item,timestamp,rating"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


KINDS = {
    "int64": lambda ids: pa.array(ids, pa.int64()),
    "int8": lambda ids: pa.array(ids, pa.int8()),
    "text": lambda ids: pa.array([str(value) for value in ids]),
    "large text": lambda ids: pa.array([str(value) for value in ids], pa.large_string()),
    "double": lambda ids: pa.array([float(value) for value in ids]),
    "float": lambda ids: pa.array([float(value) for value in ids], pa.float32()),
    "half": lambda ids: pa.array([float(value) for value in ids]).cast(pa.float16()),
    "text of floats": lambda ids: pa.array([f"{value}.0" for value in ids]),
    "decimal": lambda ids: pa.array([Decimal(value) for value in ids], pa.decimal128(20, 0)),
    "decimal with places": lambda ids: pa.array([Decimal(value) for value in ids], pa.decimal128(20, 2)),
    "dictionary of text": lambda ids: pa.array([str(value) for value in ids]).dictionary_encode(),
    "dictionary of doubles": lambda ids: pa.array([float(value) for value in ids]).dictionary_encode(),
    "uint64": lambda ids: pa.array([abs(value) for value in ids], pa.uint64()),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_id_is_one_id_in_every_type(tmp_path, name):
    """Every type gives the digits alone."""
    ids = [0, 7, 120, 100, 7]
    read = read_all(parquet(tmp_path / "a.parquet", user=KINDS[name](ids), item=KINDS[name](ids)))
    assert [(row.user, row.item) for row in read.rows] == [(str(value), str(value)) for value in ids]


@given(
    st.lists(st.integers(0, 2**23), min_size=1, max_size=9), st.sampled_from(sorted(KINDS.keys() - {"int8", "half"}))
)
def test_every_whole_number_is_one_id_in_every_type(tmp_path_factory, ids, name):
    """As far as all types hold it exactly."""
    path = tmp_path_factory.mktemp("ids") / "a.parquet"
    assert [row.user for row in read_all(parquet(path, user=KINDS[name](ids))).rows] == [str(value) for value in ids]


def test_a_column_of_floats_in_text_has_whole_ids(tmp_path):
    """pandas writes integers so where one is missing. A column with another id keeps all as they are."""
    rows = [(f"{i}.0", f"{i}", TIME, 3) for i in range(3)]
    read = read_all(text(tmp_path / "a.csv", [*rows, ("", "9", TIME, 3)]))
    assert [row.user for row in read.rows] == ["0", "1", "2"]
    assert read.reasons == [(5, "missing_user")]
    assert [row.user for row in read_all(text(tmp_path / "b.csv", [*rows, ("x", "9", TIME, 3)])).rows][:2] == [
        "0.0",
        "1.0",
    ]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([7.6e16, 7.7e16]),
        pa.array([1.0, 2.0**53]),
        pa.array([1.0, 2.0**24], pa.float32()),
        pa.array([1, math.inf]),
    ],
)
def test_floats_that_have_lost_digits_are_refused(tmp_path, ids):
    """Two users may have become one. The smaller the type, the sooner."""
    with pytest.raises((ConfigError, DataError), match=r"'item'.* lost digits; write .* integers or text"):
        read_all(parquet(tmp_path / "a.parquet", item=ids))


@pytest.mark.parametrize("value", ["7.65612E+16", "76561198000000000.0"])
def test_text_of_floats_that_have_lost_digits_is_refused(tmp_path, value):
    """As spreadsheets and pandas write long ids. A single word of this form is an id."""
    with pytest.raises(ConfigError, match="lost digits"):
        read_all(text(tmp_path / "a.csv", [(value, "i", TIME, 3)] * 3))
    assert (
        len(
            read_all(text(tmp_path / "a.csv", [("1e100", "i", TIME, 3), ("a", "i", TIME, 3), ("b", "i", TIME, 3)])).rows
        )
        == 3
    )


@pytest.mark.parametrize("word", ["", *NOBODY])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_a_word_for_nobody_is_a_missing_id(tmp_path, word, suffix):
    """In users and items; a title may be such a word."""
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        parquet(path, user=[word, "u", "v"], item=["i", word, "j"], title=[word or "x"] * 3)
    elif suffix == "jsonl":
        escaped = word.replace("\\", "\\\\")
        path.write_text(
            f'{{"user": "{escaped}", "item": "i", "timestamp": {TIME}, "title": "{escaped or "x"}"}}\n'
            f'{{"user": "u", "item": "{escaped}", "timestamp": {TIME}, "title": "{escaped or "x"}"}}\n'
            f'{{"user": "v", "item": "j", "timestamp": {TIME}, "title": "{escaped or "x"}"}}\n'
        )
    else:
        rows = [(word, "i", TIME, word or "x"), ("u", word, TIME, word or "x"), ("v", "j", TIME, word or "x")]
        path.write_text(
            "\n".join(
                (chr(9) if suffix == "tsv" else ",").join(map(str, row))
                for row in [("user", "item", "timestamp", "title"), *rows]
            )
        )
    read = read_all(path)
    assert [reason for _, reason in read.reasons] == ["missing_user", "missing_item"]
    assert [(row.user, row.title) for row in read.rows] == [("v", word or "x")]


@given(st.lists(st.tuples(st.sampled_from([*NOBODY, "u", "NULL0"]), st.booleans()), min_size=1, max_size=20))
def test_a_word_in_quotes_is_an_id(tmp_path_factory, ids):
    """R, SQL and pandas write their words without quotes, also where they quote text."""
    path = tmp_path_factory.mktemp("ids") / "a.csv"
    cells = [f'"{word}"' if quoted else word for word, quoted in ids]
    text(
        path,
        [(cell, cell, TIME, 3, f'"say ""NULL"" {i}"') for i, cell in enumerate(cells)],
        "user,item,timestamp,rating,title",
    )
    read = read_all(path)
    wanted = [(i, word) for i, (word, quoted) in enumerate(ids) if quoted or word not in NOBODY]
    assert [row.user for row in read.rows] == [word for _, word in wanted]
    titles = [row.title for row in read.rows]
    assert titles == [f'say "NULL" {i}' for i, _ in wanted] or set(titles) == {None}


@pytest.mark.parametrize("word", ["", *NOBODY, "NAN", "null", "not rated", "Unrated", "-", " ", "?"])
@pytest.mark.parametrize("suffix", ["csv", "quoted", "parquet", "jsonl"])
def test_a_word_for_no_number_is_a_missing_rating_and_completion(tmp_path, word, suffix):
    """The row is an event; a status that is a word for nobody is missing, too."""
    status = word if word in NOBODY else ""
    path = tmp_path / "a.csv"
    if suffix == "parquet":
        parquet(path, rating=[word, "3"], completion=[word, "0.5"], status=[status, "dropped"])
    elif suffix == "jsonl":
        rows = [(word, word, status), ("3", "0.5", "dropped")]
        form = {"user": "u", "item": "i", "timestamp": TIME}
        path.write_text(
            "".join(
                json.dumps(form | dict(zip(("rating", "completion", "status"), r, strict=True))) + "\n" for r in rows
            )
        )
    else:
        mark = '"' if suffix == "quoted" else ""
        rows = [
            ("u", "i", TIME, *(f"{mark}{w}{mark}" for w in (word, word, status))),
            ("u", "i", TIME, 3, 0.5, "dropped"),
        ]
        text(path, rows, "user,item,timestamp,rating,completion,status")
    read = read_all(path, columns="completion=completion")
    assert [(row.rating, row.completion, row.status) for row in read.rows] == [
        (None, 1, "completed"),
        (3, 0.5, "dropped"),
    ]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16()])
def test_nan_in_parquet_is_a_missing_rating(tmp_path, kind):
    """pandas and NumPy write a missing number so."""
    values = pa.array([math.nan, 1.0]).cast(kind)
    read = read_all(parquet(tmp_path / "a.parquet", rating=values, completion=values))
    assert [(row.rating, row.completion) for row in read.rows] == [(None, 1), (1, 1)]


@pytest.mark.parametrize("value", ["1e30", "-3e38", "16777217"])
def test_a_rating_that_no_loss_can_bear_is_refused_with_its_row(tmp_path, value):
    """And with remedies that work."""
    path = text(tmp_path / "a.csv", [("u", "i", TIME, 3), ("u", "j", TIME, value), ("v", "i", TIME, 4)])
    with pytest.raises(DataError, match=rf"a\.csv: row 3: the rating {value} is beyond") as caught:
        read_all(path)
    advised = str(caught.value).partition("--unrated ")[2].partition(",")[0]
    assert [row.rating for row in read_all(path, unrated=advised).rows] == [3, None, 4]
    assert [row.rating for row in read_all(path, columns="rating=").rows] == [None] * 3


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_unrated_ratings_are_missing(tmp_path, suffix):
    """Of any type; others stay, and what is no number is still a bad row."""
    ratings = [0, -1, 7, 0]
    if suffix == "csv":
        path = text(tmp_path / "a.csv", [("u", f"i{i}", TIME, r) for i, r in enumerate([*ratings, "x"])])
    else:
        path = parquet(tmp_path / "a.parquet", rating=ratings)
    read = read_all(path, unrated="0,-1")
    assert [row.rating for row in read.rows] == [None, None, 7, None]
    assert [reason for _, reason in read.reasons] == ["unparsable_rating"] * (suffix == "csv")
    assert "0,-1 is no rating (as asked)" in read.source.note


@pytest.mark.parametrize(
    ("header", "row", "unrated"),
    [
        ("username,anime_id,my_score,my_status,my_last_updated", f"v,20,0,2,{TIME}", (0.0,)),
        ("user,mediaId,status,score,progress,repeat,updatedAt", f"v,20,CURRENT,0,0,0,{TIME}", (0.0,)),
        ("user_id,anime_id,rating,timestamp", f"v,20,-1,{TIME}", (0.0, -1.0)),
        ("user,item,rating,timestamp", f"v,20,0,{TIME}", ()),
    ],
)
def test_the_files_of_known_sites_have_no_rating_where_they_say_so(tmp_path, header, row, unrated):
    """`--unrated none` takes them as ratings."""
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{row}\n")
    assert recognise(str(path), BuildConfig()).unrated == unrated
    assert recognise(str(path), BuildConfig(unrated="none")).unrated == ()


@pytest.mark.parametrize(
    ("levels", "apart"),
    [
        (range(11), [0]),
        ([-1, *range(1, 11)], [-1]),
        ([-1, *range(11)], [0, -1]),
        ([0, 0.5, 1, 1.5, 2, 5], [0]),
        ([0], [0]),
        ([-1], [-1]),
        ([1, 2, 3, 4, 5, 99], [99]),
        ([-9.96, *(i / 100 for i in range(-990, 990)), 99], [99]),
        ([-99, 0, 1, 2, 3, 4, 5], [0, -99]),
        ([1, 2, 3, 4, 5, 99, 999], [999, 99]),
        ([-1, *range(200)], [-1]),
        ([0, 4, 5], [0]),
        ([0, 5], [0]),
        ([-1, 4, 5], [-1]),
        (range(1, 11), []),
        ([0, 1], []),
        ([0, 1, 2], []),
        ([0, 5, 10], []),
        ([-1, 0, 1], []),
        ([-1, 1], []),
        ([-2, -1, 0, 1, 2], []),
        ([-10, -5, 0, 5], []),
        ([0, 0.1, 0.2, 0.3, 1], []),
        (range(200), []),
        ([3], []),
        ([], []),
    ],
)
def test_a_level_apart_is_told_from_a_scale(levels, apart):
    """Votes, shares and counts have none."""
    assert levels_apart([float(level) for level in levels]) == tuple(apart)
