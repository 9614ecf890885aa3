"""Event files are recognised by their content, and errors come with a remedy."""

import gzip
import io
import os
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_all import Row, read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError, StorageError, StreamfeatError
from streamfeat.events.event_paths import expand
from streamfeat.events.event_reader import read_batches
from streamfeat.events.formats import recognise
from streamfeat.events.splits import plan_splits
from streamfeat.events.titles import read_titles

MOVIETWEETINGS = Path(__file__).parents[3] / "shared/data/movietweetings"

ROWS = [Row("196", "242", 881250949, 3.0), Row("186", "302", 891717742, 3.5), Row("196", "51", 881250949, 1.0)]
COLUMNS = [(r.user, r.item, f"{r.rating:g}", str(r.time)) for r in ROWS]


def lines(delimiter: str, header: str = "", end: str = "\n") -> bytes:
    body = [delimiter.join(row) for row in COLUMNS]
    return (end.join([*([header] if header else []), *body]) + end).encode()


def write(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


FILES = {
    "u.data": ("movielens-100k", lines("\t")),
    "ratings.dat": ("movielens-dat", lines("::")),
    "ratings.csv": ("movielens-csv", lines(",", "userId,movieId,rating,timestamp")),
    "ml-100k.inter": ("recbole", lines("\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float")),
    "comma.csv": ("csv", lines(",", "user,item,rating,timestamp")),
    "quoted-header.csv": ("csv", lines(",", '"user","item","rating","timestamp"')),
    "tab.tsv": ("csv", lines("\t", "uid\tiid\tscore\tts")),
    "quoted-header.tsv": ("csv", lines("\t", '"uid"\t"iid"\t"score"\t"ts"')),
    "semicolon.csv": ("csv", lines(";", "User ID;Anime ID;Stars;Unix_Seconds")),
    "pipe.txt": ("csv", lines("|", "user_id|item_id|rating|time")),
    "colons.txt": ("csv", lines("::", "user::movie_id::rating::datetime")),
    "crlf.csv": ("csv", lines(",", "user,item,rating,timestamp", end="\r\n")),
    "bom.csv": ("csv", b"\xef\xbb\xbf" + lines(",", "user,item,rating,timestamp")),
    "bom.dat": ("movielens-dat", b"\xef\xbb\xbf" + lines("::")),
    "no-last-end.csv": ("csv", lines(",", "user,item,rating,timestamp").rstrip()),
    "blank-end.csv": ("csv", lines(",", "user,item,rating,timestamp") + b"\n\r\n\n"),
    "spaces.csv": ("csv", lines(",", " user , item , rating , timestamp ")),
    "events.csv.gz": ("csv", gzip.compress(lines(",", "user,item,rating,timestamp"))),
    "gzip-by-content.dat": ("movielens-dat", gzip.compress(lines("::"))),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_events_come_out_of_every_text_format(tmp_path, name):
    """Format, delimiter, byte order mark, line ends and gzip are recognised from the content only."""
    form, data = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    read = read_all(path)
    assert read.source.format == form
    assert read.rows == ROWS
    assert read.rejected == []
    assert "times in seconds" in read.source.note


@pytest.mark.parametrize("ids", [pa.int64(), pa.int32(), pa.uint64(), pa.string(), pa.large_string(), "dictionary"])
@pytest.mark.parametrize("rating", [pa.float64(), pa.float32(), pa.string()])
def test_the_same_events_come_out_of_parquet_of_every_type(tmp_path, ids, rating):
    """Integers, text and dictionaries are the same ids."""
    kind = pa.string() if ids == "dictionary" else ids
    columns = {
        "rating": pa.array([f"{r.rating:g}" for r in ROWS]).cast(rating),
        "userId": pa.array([r.user for r in ROWS]).cast(kind),
        "item": pa.array([r.item for r in ROWS]).cast(kind),
        "ts": pa.array([r.time for r in ROWS]),
        "other": pa.array([[1], None, [2, 3]]),
    }
    if ids == "dictionary":
        columns["item"] = columns["item"].dictionary_encode()
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    read = read_all(tmp_path / "events.parquet")
    assert read.source.format == "parquet"
    assert read.rows == ROWS


UUIDS = [uuid.UUID(int=0x61626364_6566_6768_696A_6B6C6D6E6F70), uuid.UUID(int=2**128 - 1), uuid.UUID(int=7)]


def test_uuids_are_read_as_their_usual_text(tmp_path):
    """Lower-case digits in five groups, for any bytes: those of the first one are also valid UTF-8."""
    path = tmp_path / "events.parquet"
    values = ", ".join(f"('{value}'::uuid)" for value in UUIDS)
    duckdb.sql(f"COPY (SELECT u AS user, u AS item, 1300000000 AS timestamp FROM (VALUES {values}) t(u)) TO '{path}'")
    assert [(row.user, row.item) for row in read_all(path).rows] == [(str(value), str(value)) for value in UUIDS]
    column = pa.array([None, *(value.bytes for value in UUIDS)], pa.uuid())
    write(path, user=column, title=column, item=[1, 2, 3, 4], timestamp=[1_300_000_000] * 4)
    read = read_all(path)
    assert [(row.user, row.title) for row in read.rows] == [(str(value), str(value)) for value in UUIDS]
    assert read.reasons == [(1, "missing_user")]


def test_another_extension_type_is_read_as_what_it_stores(tmp_path):
    """JSON becomes text, a number stays a number, a time a time."""
    json = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['"a"', "{}"]))
    number = pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "number", "us"), pa.array([7, 8]))
    times = pa.array([1_300_000_000_000, 1_300_000_001_000], pa.timestamp("ms"))
    time = pa.ExtensionArray.from_storage(pa.opaque(pa.timestamp("ms"), "time", "us"), times)
    write(tmp_path / "events.parquet", user=json, item=number, timestamp=time, rating=number)
    assert read_all(tmp_path / "events.parquet").rows == [
        Row('"a"', "7", 1_300_000_000, 7.0), Row("{}", "8", 1_300_000_001, 8.0),
    ]  # fmt: skip


def extension(kind: Any, values: list[Any]) -> Any:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


UNFIT = {
    "binary": lambda: pa.array([b"a", b"\xff"]),
    "large binary": lambda: pa.array([b"a", b"\xff"], pa.large_binary()),
    "fixed binary": lambda: pa.array([b"a", b"\xff"], pa.binary(1)),
    "binary view": lambda: pa.array([b"a", b"\xff"], pa.binary_view()),
    "binary view of text": lambda: pa.array([b"a", b"b"], pa.binary_view()),
    "dictionary of binary": lambda: pa.array([b"a", b"\xff"]).dictionary_encode(),
    "extension over binary": lambda: extension(pa.opaque(pa.binary(), "a", "b"), [b"a", b"\xff"]),
    "tensor": lambda: extension(pa.fixed_shape_tensor(pa.int32(), [2]), [[1, 2], [3, 4]]),
    "duration": lambda: pa.array([1, 2**62], pa.duration("s")),
    "struct": lambda: pa.array([{"binary": 1}, {"binary": 2}]),
}


@pytest.mark.parametrize("role", ["user", "timestamp", "medium", "rating"])
@pytest.mark.parametrize("name", UNFIT)
def test_a_parquet_column_that_holds_no_text_number_or_time_is_refused(tmp_path, name, role):
    """Bytes are never used as ids, numbers of unknown units never as times."""
    columns = {"user": ["a", "b"], "item": [1, 2], "timestamp": [1_300_000_000] * 2, role: UNFIT[name]()}
    write(tmp_path / "a.parquet", **columns)
    with pytest.raises(ConfigError, match=rf"'{role}' is of type .* cannot be read as {role}; .*--columns {role}=NAME"):
        read_all(tmp_path / "a.parquet")


FIT = {
    "string view": (lambda: pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    "decimal256": (lambda: pa.array([150, 2], pa.decimal256(60, 2)), ["150", "2"]),
    "time32": (lambda: pa.array([1, 2], pa.time32("ms")), ["00:00:00.001", "00:00:00.002"]),
    "time64": (lambda: pa.array([1, 2], pa.time64("ns")), ["00:00:00.000000001", "00:00:00.000000002"]),
}


@pytest.mark.parametrize("name", FIT)
def test_ids_of_rare_parquet_types_are_their_text(tmp_path, name):
    """As a time, a type without a day is an error."""
    make, wanted = FIT[name]
    path = tmp_path / "a.parquet"
    write(path, user=make(), item=[1, 2], timestamp=[1_300_000_000] * 2)
    assert [row.user for row in read_all(path).rows] == wanted
    if name != "decimal256":
        write(path, user=[1, 2], item=[1, 2], timestamp=make())
        with pytest.raises(ConfigError, match="neither a number nor an ISO time"):
            read_all(path)


def test_imdb_ids_tell_movietweetings_from_movielens(tmp_path):
    """Both have the separator '::'. IMDb ids have seven digits, with leading zeros."""
    path = tmp_path / "ratings.dat"
    path.write_text("1::0104257::8::1364690142\n2::1853728::9::1364690143\n")
    read = read_all(path)
    assert read.source.format == "movietweetings"
    assert [row.item for row in read.rows] == ["0104257", "1853728"]
    assert read.source.note.startswith("MovieTweetings")


@pytest.mark.skipif(not MOVIETWEETINGS.is_dir(), reason="MovieTweetings is not here (../shared/data/movietweetings)")
def test_movietweetings_is_read_whole_with_its_titles(tmp_path):
    """100,000 rows of 16,554 users and 10,506 items, none rejected, every item with its title."""
    read = read_all(MOVIETWEETINGS / "ratings_100K.dat", scratch=tmp_path)
    assert (len(read.rows), read.rejected) == (100_000, [])
    assert len({row.user for row in read.rows}) == 16_554
    items = {row.item for row in read.rows}
    assert len(items) == 10_506
    assert items == set(read_titles(read.source))
    lines = (MOVIETWEETINGS / "ratings_100K.dat").read_text("utf-8").splitlines()
    assert [f"{row.user}::{row.item}::{row.rating:.0f}::{row.time}" for row in read.rows] == lines


def test_columns_are_taken_as_named_before_synonyms(tmp_path):
    """`--columns role=column`; an empty column means that the role has none."""
    path = tmp_path / "a.csv"
    path.write_text("user,who,what,rating,when,status\nx,1,7,3,881250949,shipped\n")
    columns = {"user": "who", "item": "what", "timestamp": "when", "status": ""}
    assert read_all(path, columns=columns).rows == [Row("1", "7", 881250949, 3.0)]
    assert read_all(path, columns={"item": "what", "timestamp": "when", "status": ""}).rows[0].user == "x"


def test_all_roles_are_read(tmp_path):
    """Medium, status in any case or as 0 to 4, completion, title; missing ones have their defaults."""
    path = tmp_path / "a.csv"
    path.write_text(
        "user,item,media,time,score,status,progress,title\n"
        'u,1,Anime,1300000010,7.5,Completed,0.5,"One, the ""first"""\n'
        "u,2,manga,1300000011,,4,,\nu,3,manga,1300000012,1,,1,Three\n"
    )
    assert read_all(path).rows == [
        Row("u", "1", 1300000010, 7.5, "anime", "completed", 0.5, 'One, the "first"'),
        Row("u", "2", 1300000011, None, "manga", "dropped", 1.0, None),
        Row("u", "3", 1300000012, 1.0, "manga", "completed", 1.0, "Three"),
    ]


ERRORS = {
    "missing column": (b"user,itm,ts\n1,2,3\n", {}, ConfigError, ["'user', 'itm', 'ts'", "closest is 'itm'"]),
    "no header": (b"1,2,3,881250949\n1,2,3,881250950\n", {}, ConfigError, ["no column for user", "looks like data"]),
    "unknown role": (
        b"user,item,ts\n", {"columns": {"usr": "user"}}, ConfigError, ["'usr'", "mean 'user'?; a role is given as"],
    ),
    "no column in Parquet": (parquet(), {}, ConfigError, ["no column for user", "no columns at all; write it again"]),
    "numbered columns in Parquet": (
        parquet(**{"0": [1], "1": [2]}), {}, ConfigError, ["found '0', '1'; name it with --columns user=NAME"],
    ),
    "override missing": (
        b"user,item,timestamp\n", {"columns": {"item": "itme"}}, ConfigError, ["no column 'itme'", "closest is 'item'"],
    ),
    "one column twice": (b"a,item,ts\n", {"columns": {"user": "a", "rating": "a"}}, ConfigError, ["as user and"]),
    "same name twice": (b"user,item,item,ts\n", {}, ConfigError, ["two columns are called 'item'"]),
    "other delimiter below": (b"user,item,ts\n1;2;3\n", {}, ConfigError, ["no line has the 3 fields"]),
    "empty": (b"", {}, DataError, ["empty"]),
    "blank": (b"\n\n", {}, DataError, ["has no lines"]),
    "utf-16 without mark": (
        "user,item,ts\n".encode("utf-16-be"), {}, ConfigError, ["UTF-16", "give --encoding utf-16-be"],
    ),
    "zstd": (b"(\xb5/\xfd....", {}, ConfigError, ["zstd"]),
    "binary": (b"\x01\x00\x00\x00" * 99, {}, ConfigError, ["neither text nor Parquet"]),
    "cut gzip": (gzip.compress(b"user,item,ts\n1,2,3\n" * 999)[:-20], {}, DataError, ["gzip file is damaged"]),
    "cut parquet": (b"PAR1" + b"x" * 99, {}, DataError, ["without its end"]),
    "asked for parquet": (b"user,item,ts\n", {"format": "parquet"}, DataError, ["not a Parquet file"]),
    "asked for dat": (b"user,item,ts\n", {"format": "movielens-dat"}, ConfigError, ["4 fields separated by '::'"]),
    "asked for recbole": (b"user,item,ts\n", {"format": "recbole"}, ConfigError, ["user_id:token"]),
    "unknown format": (b"user,item,ts\n", {"format": "parqet"}, ConfigError, ["did you mean 'parquet'"]),
    "no time": (b"user,item,ts\n1,2,yesterday\n", {}, ConfigError, ["'yesterday'", "ISO"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_unusable_file_is_refused_with_the_remedy(tmp_path, name):
    """What, where, got, and what to do; planning may be what finds a damaged end."""
    data, config, error, words = ERRORS[name]
    path = tmp_path / "events.txt"
    path.write_bytes(data)
    with pytest.raises(error) as caught:
        plan_splits([recognise(str(path), BuildConfig(**config))])
    for word in [*words, *(["events.txt"] if name not in ("unknown role", "unknown format") else [])]:
        assert word in str(caught.value)


def test_a_file_named_parquet_that_is_none_is_refused(tmp_path):
    """It is not read as text by accident."""
    path = tmp_path / "events.parquet"
    path.write_text("user,item,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match="has the name of a Parquet file"):
        recognise(str(path), BuildConfig())


def test_a_folder_and_an_absent_file_are_refused(tmp_path):
    """The remedy is a glob."""
    with pytest.raises(ConfigError, match=r"\*\.csv"):
        recognise(str(tmp_path), BuildConfig())
    with pytest.raises(ConfigError, match="no such file"):
        recognise(str(tmp_path / "absent.csv"), BuildConfig())


def test_a_parquet_column_of_a_type_that_cannot_serve_is_refused(tmp_path):
    """Lists cannot be ids."""
    table = pa.table({"user": [[1]], "item": [1], "timestamp": [1_300_000_000]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"'user' is of type list.*--columns user=NAME"):
        read_all(tmp_path / "a.parquet")


def test_a_parquet_file_that_changes_after_it_was_planned_is_an_error(tmp_path):
    """Another column, or one of them twice: the reader notices it."""
    path = tmp_path / "a.parquet"
    sound = {"user": ["a"], "item": [1], "timestamp": [1_300_000_000]}
    write(path, **sound)
    (split,) = plan_splits([recognise(str(path), BuildConfig())])
    twice = pa.Table.from_arrays([pa.array(values) for values in (*sound.values(), ["b"])], [*sound, "user"])
    for other in (pa.table({**sound, "user": [[1]]}).rename_columns(["uid", "item", "timestamp"]), twice):
        pq.write_table(other, path)
        with pytest.raises(DataError, match=r"a\.parquet: the column 'user' is there twice.*changed while it was read"):
            list(read_batches(split, tmp_path, "item"))


def test_a_name_that_the_system_does_not_take_is_an_error_of_that_file(tmp_path):
    """Too long, or a link to itself, or empty. With a star in it, the name matches no file."""
    (tmp_path / "loop").symlink_to("loop")
    for name, word in (("n" * 300, "File name too long"), ("loop", "Too many levels")):
        (file,) = expand([str(tmp_path / name)]).files
        with pytest.raises(StorageError, match=rf"{word}.*give another file"):
            recognise(file, BuildConfig())
    with pytest.raises(ConfigError, match="matches no file"):
        expand([str(tmp_path / ("n" * 300 + "*"))])
    with pytest.raises(ConfigError, match="name of an event file is empty"):
        recognise("", BuildConfig())


def test_a_damaged_parquet_file_is_an_error_that_names_it(tmp_path):
    """Altered bits in a page (found if the file has page checksums) and in the footer."""
    path = tmp_path / "a.parquet"
    table = pa.table({"user": range(5000), "item": range(5000), "timestamp": range(5000)})
    pq.write_table(table, path, write_page_checksum=True)
    good = path.read_bytes()
    for place in (200, len(good) // 2, len(good) - 60):
        path.write_bytes(good[:place] + bytes(32) + good[place + 32 :])
        with pytest.raises(StreamfeatError, match=r"a\.parquet"):
            read_all(path)


def test_a_file_with_a_header_only_has_no_split(tmp_path):
    """Such a file is not an error by itself; the build reports that no user is left."""
    path = tmp_path / "a.csv"
    for text in ("user,item,timestamp\n", "user,item,timestamp", "user,item,timestamp\n\n\n"):
        path.write_text(text)
        assert plan_splits([recognise(str(path), BuildConfig())]) == []


def test_events_are_expanded_in_order_with_sorted_globs(tmp_path):
    """Files in the given order, the matches of a glob sorted, names with brackets used literally."""
    for name in ("b.csv", "a.csv", "z.dat", "x[1].csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.csv").mkdir()
    files = expand([f"{tmp_path}/z.dat", f"{tmp_path}/[ab]*.csv", f"{tmp_path}/x[1].csv"]).files
    assert [Path(file).name for file in files] == ["z.dat", "a.csv", "b.csv", "x[1].csv"]
    with pytest.raises(ConfigError, match="matches no file"):
        expand([f"{tmp_path}/*.parquet"])
    with pytest.raises(ConfigError, match="at least one"):
        expand([])


TITLES = {
    "u.data": ("u.item", "242|Café (1997)|x\n51|Legends|y\n".encode("latin-1")),
    "ratings.dat": ("movies.dat", "242::Café (1997)::Drama\n51::Legends::War\n".encode()),
    "ratings.csv": ("movies.csv", 'movieId,title,genres\r\n242,"Café (1997)",Drama\r\n51,Legends,War\r\n'.encode()),
    "ml-100k.inter": ("ml-100k.item", "item_id:token\tmovie_title:token_seq\n242\tCafé (1997)\n51\tLegends\n".encode()),
    "comma.csv": ("movies.csv", b"movieId,title\n242,no\n"),
}


def test_titles_are_read_from_ordinary_files_alone(tmp_path):
    """Reading a named pipe would wait without end."""
    (tmp_path / "ratings.csv").write_bytes(FILES["ratings.csv"][1])
    os.mkfifo(tmp_path / "movies.csv")
    with pytest.raises(DataError, match=r"movies\.csv: the titles are not an ordinary file; move it away"):
        read_titles(recognise(str(tmp_path / "ratings.csv"), BuildConfig()))


def test_titles_are_found_by_the_header_of_their_file(tmp_path):
    """pandas writes its index as a first column, and columns may stand in any order."""
    (tmp_path / "ratings.csv").write_bytes(FILES["ratings.csv"][1])
    source = recognise(str(tmp_path / "ratings.csv"), BuildConfig())
    for text in (
        ',movieId,title\n0,242,"Café, 2"\n1,51,Legends\n',
        'title,genres,movieId\n"Café, 2",x,242\nLegends,y,51\n',
    ):
        (tmp_path / "movies.csv").write_text(text)
        assert read_titles(source) == {"242": "Café, 2", "51": "Legends"}
    (tmp_path / "movies.csv").write_text("a,b\n242,no\n")
    assert read_titles(source) == {}


@pytest.mark.parametrize("name", TITLES)
def test_titles_come_from_the_file_beside(tmp_path, name):
    """Each known data set has its titles in a separate file; a generic source has none."""
    other, data = TITLES[name]
    (tmp_path / name).write_bytes(FILES[name][1])
    source = recognise(str(tmp_path / name), BuildConfig())
    assert read_titles(source) == {}
    (tmp_path / other).write_bytes(data)
    assert read_titles(source) == ({"242": "Café (1997)", "51": "Legends"} if name != "comma.csv" else {})
