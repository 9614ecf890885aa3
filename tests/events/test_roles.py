"""Columns get their roles by name and by value, and what was taken and left is said."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_all import Row, read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.column_values import NOBODY, is_time
from streamfeat.events.formats import recognise

PAGE = (Path(__file__).parents[2] / "docs/reading.md").read_text("utf-8")
ROLES = ("user", "item", "timestamp", "rating", "title")
EXAMPLES = [
    [cell.strip().strip("`").replace("⇥", "\t") for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `[^`]*[,;⇥][^`]*` \| `", line)
]


@pytest.mark.parametrize(("header", "row", "roles"), [(e[0], e[1], e[2:]) for e in EXAMPLES])
def test_the_headers_on_the_page_are_read_as_it_says(tmp_path, header, row, roles):
    """Every row of the table of docs/reading.md, as text."""
    path = tmp_path / "events.csv"
    path.write_text(f"{header}\n" + f"{row}\n" * 12)
    columns = recognise(str(path), BuildConfig()).columns
    assert {role: columns.get(role, "") for role in ROLES} == dict(zip(ROLES, roles, strict=True))


def test_the_page_has_examples():
    """The test above would pass without any."""
    assert len(EXAMPLES) >= 14


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_identifier_comes_before_a_label(tmp_path, suffix):
    """Two people of one name are two users; the choice is said, and the film's name is its title."""
    rows = [("Sam", f"{i}", f"Film {i % 3}", f"f{i % 3}", 1_500_000_000 + i) for i in range(12)]
    names = ("user", "user_id", "movie", "movie_id", "timestamp")
    source = written(tmp_path, suffix, names, rows)
    assert source.columns == {"user": "user_id", "item": "movie_id", "timestamp": "timestamp", "title": "movie"}
    assert "user=user_id (not 'user'), item=movie_id" in source.note


def test_an_identifier_without_values_is_not_taken(tmp_path):
    """Exports keep empty columns."""
    source = written(
        tmp_path, "csv", ("user_id", "user", "item", "ts"), [("", "a", f"i{i}", 1e9 + i) for i in range(9)]
    )
    assert source.columns["user"] == "user"


def test_a_column_that_numbers_the_rows_is_no_item(tmp_path):
    """`item_id` of an order is the line of the order."""
    rows = [(i, f"p{i % 4}", "u", 1_500_000_000 + i) for i in range(1, 20)]
    assert written(tmp_path, "csv", ("item_id", "product", "user", "time"), rows).columns["item"] == "product"


@pytest.mark.parametrize("uids", [range(5, 25), [i * 7919 % 1000 for i in range(20)]])
def test_a_column_that_numbers_reviews_is_no_user(tmp_path, uids):
    """`uid` beside `username`; alone it is taken, and that each row has a user of its own is said."""
    rows = [(uid, f"p{i % 6}", f"m{i % 7}", 1_500_000_000 + i) for i, uid in enumerate(uids)]
    source = written(tmp_path, "csv", ("uid", "username", "movie_id", "time"), rows)
    assert "user=username (not 'uid')" in source.note
    names = ("uid", "name", "movie_id", "time")
    source = written(tmp_path, "csv", names, rows)
    assert source.columns["user"] == "uid"
    assert ("numbers the rows" in source.note) == (uids == range(5, 25))
    ids = [
        (uid, "Kindle Customer" if i % 9 else f"Name {i}", item, time) for i, (uid, _, item, time) in enumerate(rows)
    ]
    assert (
        written(tmp_path, "csv", ("user_id", "user", "movie_id", "time"), ids[:5] + rows[5:10]).columns["user"]
        == "user_id"
    )


def test_what_would_make_wrong_histories_is_said_of_ids(tmp_path):
    """Ids that differ by spaces stay two ids; songs of one name by two artists are one item."""
    rows = [
        (f"u{i % 4}" + " " * (i % 2), 'say "x"', f"Song {i % 3}", f"Band {i % 2}", 1_500_000_000 + i) for i in range(40)
    ]
    source = written(tmp_path, "parquet", ("user", "note", "track", "artist_name", "time"), rows)
    assert "2 of 4 sampled ids of user begin or end with spaces: ids are kept as they are" in source.note
    assert "items are named by 'track' alone" in source.note
    rows = [("u0" + " " * (i % 3), *row[1:]) for i, row in enumerate(rows)]
    note = written(tmp_path, "csv", ("user", "note", "track", "track_id", "time"), rows).note
    assert "2 of 3 sampled ids of user begin or end with spaces, and 2 differ from another by nothing else" in note
    assert "alone" not in note


def test_a_column_that_could_play_a_role_is_named(tmp_path):
    """It has no usual name, but is the only one left; so do the types of MongoDB's exports in names."""
    rows = [(f"u{i % 4}", f"x{i % 5}", i % 3, 1_500_000_000 + i) for i in range(40)]
    with pytest.raises(ConfigError, match="it may be 'thing'; name it with --columns item=thing"):
        written(tmp_path, "csv", ("user", "thing", "rating", "time"), rows)
    source = written(tmp_path, "csv", ("user_id.$oid", "placeID", "rating", "createdAt.$date.$numberLong"), rows)
    assert source.columns["user"] == "user_id.$oid"


def test_a_title_is_advised_as_item_and_a_number_of_each_row_is_not(tmp_path):
    """`reviewid` is nearer to `id` names than `title` is, but is another one in each row."""
    rows = [(i * 7919 % 997, f"u{i % 5}", f"Film {i % 7}", 1_500_000_000 + i) for i in range(40)]
    with pytest.raises(ConfigError, match=r"name it with --columns item=title$"):
        written(tmp_path, "csv", ("reviewid", "user", "title", "time"), rows)


def test_a_column_that_differs_between_rows_of_one_item_is_no_title(tmp_path):
    """The `title` of a review is that of the review."""
    rows = [("u", f"i{i % 3}", 1_500_000_000 + i, f"my opinion {i}") for i in range(12)]
    assert "title" not in written(tmp_path, "csv", ("user", "item", "time", "title"), rows).columns


def test_a_finer_time_of_the_same_days_is_taken_and_an_earlier_event_is_not(tmp_path):
    """`created_at` is finer than `watched_on` in both files, but in the second one it is the day of the account."""
    names = ("user", "item", "date", "created_at")
    same = [("u", f"i{i}", f"2020-03-{i + 1:02d}", f"2020-03-{i + 1:02d} 10:00:0{i % 9}") for i in range(12)]
    assert written(tmp_path, "csv", names, same).columns["timestamp"] == "created_at"
    other = [(u, item, date, "2012-01-01 10:00:00") for u, item, date, _ in same]
    source = written(tmp_path, "csv", names, other)
    assert source.columns["timestamp"] == "date"
    assert "timestamp=date (not 'created_at')" in source.note


def test_a_filled_column_of_times_comes_before_one_with_gaps(tmp_path):
    """An entry without `read_at` would be rejected. Where all have gaps, their share is said."""
    rows = [("u", f"i{i}", "" if i % 3 else f"2020-03-{i + 1:02d}", f"2020-04-{i + 1:02d}") for i in range(20)]
    source = written(tmp_path, "csv", ("user", "item", "read_at", "date_added"), rows)
    assert "timestamp=date_added (not 'read_at')" in source.note
    source = written(tmp_path, "csv", ("user", "item", "read_at"), [row[:3] for row in rows])
    assert "'read_at' is empty in 65% of the sampled rows" in source.note


def test_dates_are_joined_with_the_one_column_of_times_of_day(tmp_path):
    """A column of moments is taken alone, and the times of day are named."""
    rows = [("u", f"i{i}", "2020-03-01", f"{i}:00:00") for i in range(12)]
    source = written(tmp_path, "csv", ("user", "item", "date", "time"), rows)
    assert "timestamp=date+time" in source.note
    rows = [("u", f"i{i}", f"2020-03-01 0{i}:00:00", f"{i}:00:00") for i in range(9)]
    source = written(tmp_path, "csv", ("user", "item", "date", "time"), rows)
    assert source.columns["timestamp"] == "date"
    assert "'time' holds times of day without a date" in source.note


def test_a_title_that_ends_in_a_year_is_no_time(tmp_path):
    """12 Monkeys 1995 and The Matrix 1999 have the form of dates, but no month."""
    titles = ["12 Monkeys 1995", "The Matrix 1999", "Apollo 13 1995"]
    rows = [("u", titles[i % 3], 1_500_000_000 + i) for i in range(12)]
    assert written(tmp_path, "csv", ("user", "movie", "time"), rows).columns["item"] == "movie"
    assert not any(map(is_time, titles))
    for time in ("Tue Apr 03 18:00:09 +0000 2012", "20 Jul 2017 02:42", "July 4, 2017", "04/Jul/2017:10:00:00 +0000"):
        assert is_time(time)


def test_a_column_called_like_a_rating_is_named_if_it_has_no_role(tmp_path):
    """With the option that takes it."""
    rows = [("u", f"i{i}", 1_500_000_000 + i, 7) for i in range(3)]
    source = written(tmp_path, "csv", ("user", "item", "time", "Rating / 10"), rows)
    assert "'Rating / 10' holds numbers and has no role (--columns rating='Rating / 10' takes it)" in source.note
    rows = [("u", f"i{i}", 1_500_000_000 + i, "PG-13", i % 10) for i in range(12)]
    source = written(tmp_path, "csv", ("user", "item", "time", "rating", "score"), rows)
    assert source.columns["rating"] == "score"


@pytest.mark.parametrize(
    ("names", "take"),
    [
        (("watched_seconds", "duration"), "completion=watched_seconds,total=duration"),
        (("ms_played", "likes"), None),
        (("timePlayed", "length"), None),
        (("seconds_listened_to", "track_duration_ms"), None),
        (("listened_secs", "track_duration_ms"), "completion=listened_secs,total=track_duration_ms"),
        (("playtime", "price"), "completion=playtime"),
    ],
)
def test_a_column_called_like_a_progress_is_named_if_it_has_no_role(tmp_path, names, take):
    """With the option that takes it, which works where there is a total."""
    rows = [("u", f"i{i}", 1_500_000_000 + i, i, 40) for i in range(20)]
    note = written(tmp_path, "csv", ("user", "item", "time", *names), rows).note
    assert ("holds numbers and has no role" in note) == bool(take)
    if take:
        assert f"--columns {take} takes it" in note
    if take and "total" in take:
        assert read_all(tmp_path / "events.csv", columns=take).rows[10].completion == 0.25


def test_advice_names_only_columns_that_could_play_the_role(tmp_path):
    """`itm_ts` is nearer to `item` than `thing`, but holds times; no column but `when` holds them."""
    rows = [("u", f"i{i}", f"2020-03-{i + 1:02d}", i / 3) for i in range(12)]
    with pytest.raises(ConfigError, match=r"no column for timestamp; .*; times are in 'when'; .*timestamp=when"):
        written(tmp_path, "csv", ("user", "item", "when", "times"), rows)
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, "csv", ("user", "thing", "timestamp", "itemm"), rows)
    assert "closest" not in str(caught.value)


def test_columns_may_be_given_by_place_and_roles_left_out_or_constant(tmp_path):
    """Also for Parquet; the constant is the same in every row."""
    rows = [("x", f"i{i}", 1_500_000_000 + i, 3) for i in range(3)]
    config = {"columns": "item=#2,rating=", "constant": "user=it's me"}
    for suffix in ("csv", "parquet"):
        written(tmp_path, suffix, ("who", "what", "time", "rating"), rows, **config)
        read = read_all(tmp_path / f"events.{suffix}", **config)
        assert read.rows == [Row("it's me", f"i{i}", 1_500_000_000 + i) for i in range(3)]
        assert 'user is always "it\'s me"' in read.source.note
    with pytest.raises(ConfigError, match="there are 4"):
        read_all(tmp_path / "events.csv", columns={"item": "#5"})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("user=a,item=b", {"user": "a", "item": "b"}),
        ("rating=Rating, of 10", {"rating": "Rating, of 10"}),
        (["rating=a=b", "user=Name, first, timestamp=t"], {"rating": "a=b", "user": "Name, first", "timestamp": "t"}),
        ("status=", {"status": ""}),
    ],
)
def test_a_comma_begins_another_role_only_before_a_word_and_an_equals_sign(given, found):
    """A name is all between the first `=` and such a comma."""
    assert BuildConfig(columns=given).columns == found


def test_columns_and_constants_that_cannot_be_are_refused(tmp_path):
    """The message says what to write."""
    with pytest.raises(ValueError, match="user is given twice"):
        BuildConfig(columns=["user=a", "user=b"])
    with pytest.raises(ValueError, match="a constant needs a value"):
        BuildConfig(constant="user=")
    rows = [("x", "i", 1_500_000_000)]
    written(tmp_path, "csv", ("who", "what", "time"), rows, columns="user=who,item=what")
    for columns, constant, message in (
        ({"user": "who"}, {"user": "me"}, "constant: user is given a column, too"),
        ({}, {"timestamp": "2020-01-01"}, "constant: timestamp: events of one time"),
        ({}, {"usr": "me"}, "constant: unknown role 'usr'; did you mean 'user'"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_all(tmp_path / "events.csv", columns=columns, constant=constant)


DATA = {
    "words": ("sam,heat,1500000000\nann,up,1500000001\n", "sam holds"),
    "dates": ("2017-07-14;sam;heat\n2017-07-15;ann;up\n", ""),
    "numbers": ("1\t20\t1500000000\t1\n2\t27\t1500004321\t2\n", ""),
}


@pytest.mark.parametrize("name", DATA)
def test_a_first_line_of_data_never_becomes_names(tmp_path, name):
    """It is refused with options that read it, whether ids are words or numbers."""
    path = tmp_path / "events.txt"
    path.write_text(DATA[name][0] * 20)
    with pytest.raises(ConfigError, match="first line looks like data, not names") as caught:
        recognise(str(path), BuildConfig())
    advised = re.search(r"--columns (\S+)", str(caught.value))
    assert advised
    read = read_all(path, columns=advised[1])
    assert len(read.rows) == 40
    assert {row.time for row in read.rows} <= {1500000000, 1500000001, 1500004321, 1499990400, 1500076800}


def test_names_are_names_even_if_ids_are_words(tmp_path):
    """A file of words with a header, and one whose names are numbers."""
    path = tmp_path / "events.csv"
    path.write_text("user,item,timestamp\nsam,heat,1500000000\nann,up,1500000001\n")
    assert len(read_all(path).rows) == 2
    path.write_text("0,1,2\nsam,heat,1500000000\nann,up,1500000001\n")
    assert len(read_all(path, columns="user=0,item=1,timestamp=2").rows) == 2


def test_movielens_is_not_believed_by_the_number_of_its_fields(tmp_path):
    """Item, user, rating, time as in MovieLens-100K, and its times with user and item changed about."""
    path = tmp_path / "events.tsv"
    for line in ("20\t1\t5\t1500000000", "1500\t7\t5\t881250949", "7\t20\t17\t881250949", "7\t20\t881250949\t5"):
        path.write_text(f"{line}\n" * 20)
        with pytest.raises(ConfigError, match="first line looks like data"):
            recognise(str(path), BuildConfig())
    path.write_text("196\t242\t3\t881250949\n" * 20)
    assert recognise(str(path), BuildConfig()).format == "movielens-100k"
    path.write_text("userId,movieId,rating,timestamp\nann,up,3,1500000000\n")
    assert recognise(str(path), BuildConfig()).format == "csv"


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("B008122250,A534439589175X,1.0,1499990400", Row("A534439589175X", "B008122250", 1499990400, 1.0)),
        ("A534439589175X,0439010001,5.0,1499990400", Row("A534439589175X", "0439010001", 1499990400, 5.0)),
        ("7\t2017-07-14T00:00:00Z\t30.23\t-97.79\t22847", Row("7", "22847", 1499990400)),
    ],
)
def test_the_files_of_amazon_and_gowalla_have_no_names(tmp_path, line, row):
    """Users and items are told apart by the form of their ids."""
    path = tmp_path / "ratings.txt"
    path.write_text(f"{line}\n" * 12)
    assert read_all(path).rows == [row] * 12


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("1 1\n1 2\n2 1\n", "awk .*1000000000"),
        ("1:\n7,3,2005-09-06\n2:\n8,4,2005-09-06\n", "awk -F:"),
        ("user_id,anime_id,rating\n0,20,-1\n", "awk .*1000000000"),
    ],
)
def test_a_file_without_a_column_of_times_is_refused_with_a_command_that_makes_one(tmp_path, text, advice):
    """The command is typed as it stands, and what it writes is read."""
    import subprocess

    path = tmp_path / "events.txt"
    path.write_text(text * 12)
    with pytest.raises(ConfigError, match=advice) as caught:
        recognise(str(path), BuildConfig())
    command = re.search(r"(\(echo|awk) .*> (\S+)", str(caught.value), re.DOTALL)
    assert command
    subprocess.run(command[0], shell=True, cwd=tmp_path, check=True)
    made = tmp_path / command[2]
    columns = "user=#1,item=#2,timestamp=#3" if text.startswith("1 1") else {}
    lines = text.strip().split("\n")
    num = {"1 1": 3, "1:\n": 2}.get(text[:3], len(lines) - 1) * 12
    assert len(read_all(made, columns=columns).rows) >= num - 11


def test_a_date_in_several_columns_is_refused_with_the_option_that_joins_them(tmp_path):
    """As in MovieLens HetRec; the option is typed as it stands."""
    path = tmp_path / "user_ratedmovies.dat"
    path.write_text(
        "userID\tmovieID\tdate_day\tdate_month\tdate_year\tdate_hour\tdate_minute\n" + "75\t3\t4\t7\t2017\t2\t40\n" * 9
    )
    with pytest.raises(ConfigError, match="the date is in several columns") as caught:
        recognise(str(path), BuildConfig())
    told = re.search(r"--columns (timestamp=\S+)", str(caught.value))
    assert [row.time for row in read_all(path, columns=told[1]).rows] == [1_499_126_400 + 2 * 3600 + 40 * 60] * 9


def written(folder, suffix, names, rows, **config):
    """The source of a file with these columns."""
    path = folder / f"events.{suffix}"
    if suffix == "csv":
        path.write_text(
            "\n".join(",".join(f'"{v}"' if "," in str(v) else str(v) for v in row) for row in [names, *rows])
        )
    else:
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    return recognise(str(path), BuildConfig(**config))


COLUMNS = {
    "user": lambda i: f"Sam {i % 3}",
    "user_id": lambda i: f"{i % 9}",
    "movie": lambda i: f"Film {i % 5}",
    "movie_id": lambda i: f"m{i % 5}",
    "created_at": lambda i: "2012-01-01 00:00:00",
    "watched_at": lambda i: f"2020-03-{i % 28 + 1:02d} 10:00:00",
    "rating": lambda i: f"{i % 5 + 1}",
    "IMDb Rating": lambda i: "7.1",
    "price": lambda i: "2.5",
}


@given(st.permutations(list(COLUMNS)))
def test_the_choice_is_the_same_in_every_order_of_the_columns(tmp_path_factory, names):
    """And names what was left."""
    rows = [tuple(COLUMNS[name](i) for name in names) for i in range(12)]
    source = written(tmp_path_factory.mktemp("order"), "csv", names, rows)
    wanted = {"user": "user_id", "item": "movie_id", "timestamp": "watched_at", "rating": "rating", "title": "movie"}
    assert source.columns == wanted
    for left in ("(not 'user')", "(not 'created_at')", "'IMDb Rating' holds numbers and has no role"):
        assert left in source.note


IDS = st.text("abcdefgXYZ0123456789 -_é", min_size=1, max_size=9).filter(lambda word: word.strip())
NAMES_OF_COLUMNS = [("user", "item", "timestamp"), ("uid", "Movie", "date"), ("who", "what", "when")]


@given(
    st.lists(st.tuples(IDS, IDS, st.integers(9 * 10**8, 2 * 10**9)), min_size=1, max_size=30),
    st.sampled_from([",", "\t", ";", "|", "::"]),
    st.sampled_from([None, *NAMES_OF_COLUMNS]),
    st.booleans(),
)
def test_the_first_line_is_names_if_and_only_if_it_is_no_row(tmp_path_factory, rows, delimiter, names, as_dates):
    """For ids of any words and times as seconds or dates: every row is read, and nothing but rows."""
    path = tmp_path_factory.mktemp("line") / "events.txt"
    times = [str(np.datetime64(time, "s")) if as_dates else str(time) for _, _, time in rows]
    lines = [delimiter.join((user, item, time)) for (user, item, _), time in zip(rows, times, strict=True)]
    path.write_text("\n".join([*([delimiter.join(names)] if names else []), *lines]) + "\n")
    read = read_all(path, columns="user=#1,item=#2,timestamp=#3")
    assert read.source.header == (names is not None)
    wanted = [row for row in rows if row[0] not in NOBODY and row[1] not in NOBODY]
    assert [row.time for row in read.rows] == [time for _, _, time in wanted]
