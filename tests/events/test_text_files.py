"""Text as other programs write it: encodings, decimal commas, a first line of Excel, zero bytes, workbooks."""

import codecs
import gzip
import subprocess
import zipfile

import pytest
from read_all import read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.decimal_comma import has_decimal_commas
from streamfeat.events.encodings import encoding_hint, seems_to_be
from streamfeat.events.formats import recognise
from streamfeat.events.splits import plan_splits
from streamfeat.events.user_histories import read_histories

FILMS = ["Amélie", "Brasil", "Café Müller", "Señora"]
TEXT = "user,item,timestamp,rating\n" + "".join(f"u{i},{FILMS[i % 4]},{1_500_000_000 + i},{i % 5}\n" for i in range(20))
JAPANESE = (
    TEXT.replace("Amélie", "鋼の錬金術師").replace("Café Müller", "となりのトトロ").replace("Señora", "進撃の巨人")
)


@pytest.mark.parametrize(
    ("encoding", "mark", "asked"),
    [
        ("utf-16-le", codecs.BOM_UTF16_LE, None),
        ("utf-16-be", codecs.BOM_UTF16_BE, None),
        ("utf-32-le", codecs.BOM_UTF32_LE, None),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-le", codecs.BOM_UTF16_LE, "cp1252"),
        ("utf-8", b"", "utf-8"),
        ("utf-8", codecs.BOM_UTF8, "latin-1"),
        ("cp1252", b"", "cp1252"),
        ("latin-1", b"", "iso-8859-1"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_same_events_come_out_of_every_encoding(tmp_path, encoding, mark, asked, packed):
    """By its mark, which is believed first, or by `--encoding`; also in gzip."""
    data = mark + TEXT.encode(encoding)
    (tmp_path / "a.csv").write_bytes(gzip.compress(data) if packed else data)
    (tmp_path / "plain.csv").write_text(TEXT, "utf-8")
    read = read_all(tmp_path / "a.csv", rows_per_split=7, batch_rows=3, **({"encoding": asked} if asked else {}))
    assert read.rows == read_all(tmp_path / "plain.csv").rows
    assert [row.item for row in read.rows[:4]] == FILMS
    assert read.rejected == []


@pytest.mark.parametrize("encoding", ["shift_jis", "euc_jp"])
def test_a_file_in_an_encoding_of_several_bytes_is_read_by_its_name(tmp_path, encoding):
    """A delimiter never is the second byte of a character, because the text is converted first."""
    (tmp_path / "a.csv").write_bytes(JAPANESE.encode(encoding))
    read = read_all(tmp_path / "a.csv", encoding=encoding)
    assert [row.item for row in read.rows[:4]] == ["鋼の錬金術師", "Brasil", "となりのトトロ", "進撃の巨人"]


def test_bytes_that_the_given_encoding_does_not_know_cost_their_row_alone(tmp_path):
    """No id is made of them."""
    data = TEXT.encode("cp1252").splitlines(keepends=True)
    data[3] = data[3].replace(b"Caf", b"\x81af")
    (tmp_path / "a.csv").write_bytes(b"".join(data))
    read = read_all(tmp_path / "a.csv", encoding="cp1252")
    assert (read.reasons, "--encoding" in read.source.note) == ([(4, "invalid_utf8")], False)
    assert "not cp1252, by which it was read" in encoding_hint([read.source])


@pytest.mark.parametrize(("encoding", "text"), [("cp1252", TEXT), ("cp932", JAPANESE), ("euc_jp", JAPANESE),
    ("cp1251", TEXT.replace("Amélie", "Ночной дозор").replace("Café Müller", "Брат").replace("Señora", "Сталкер")),
    ("gb18030", TEXT.replace("Amélie", "霸王别姬").replace("Café Müller", "红楼梦").replace("Señora", "我不是药神")),
])  # fmt: skip
def test_the_message_says_what_the_encoding_seems_to_be(tmp_path, encoding, text):
    """With the option that reads it; the rows are not read wrongly meanwhile."""
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    read = read_all(path)
    assert f"--encoding {encoding}" in read.source.note
    assert {reason for _, reason in read.reasons} == {"invalid_utf8"}
    assert len(read_all(path, encoding=encoding).rows) == 20


def test_a_header_that_is_not_utf8_names_the_encoding_in_its_error(tmp_path):
    """The column that is missing may have another spelling there."""
    path = tmp_path / "a.csv"
    path.write_bytes("user,ítem,timestamp\nu,i,1500000000\n".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"no column for item.*--encoding cp1252"):
        recognise(str(path), BuildConfig())
    path.write_bytes("user,ítem,timestamp\nu,é,1500000000\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"invalid_utf8; .*seems to be cp1252.*--encoding cp1252"):
        read_histories(path, BuildConfig(columns={"item": "\ufffdtem"}), medium="film")


def test_a_guess_of_the_encoding_exists_for_any_bytes():
    """Also for those that no encoding of the list has."""
    assert seems_to_be(b"a\x81\x8d") == "latin-1"
    assert seems_to_be(b"\xff") == "cp1252"


def test_utf_16_without_its_mark_names_the_option_also_in_gzip(tmp_path):
    """With the option the file is read."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode("utf-16-le")))
    with pytest.raises(ConfigError, match=r"every other byte is zero.*--encoding utf-16-le"):
        recognise(str(path), BuildConfig())
    assert len(read_all(path, encoding="utf-16-le").rows) == 20


@pytest.mark.parametrize("name", ["rot13", "base64", "undefined", "nothing", ""])
def test_an_encoding_that_python_does_not_know_is_refused(name):
    """Codecs that are no text encodings, too."""
    with pytest.raises(ValueError, match="not a text encoding"):
        BuildConfig(encoding=name)


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;\r"])
def test_a_first_line_of_excel_is_no_header(tmp_path, first):
    """It names the delimiter. Rows are numbered as in the file."""
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\nuser;item;timestamp\nu,1;i;1500000000\nu;i;soon\nu;i;1500000009\n")
    read = read_all(path, rows_per_split=2)
    assert [row.user for row in read.rows] == ["u,1", "u"]
    assert read.reasons == [(4, "unparsable_time")]
    assert read_all(path, rows_per_split=1).rows == read.rows


def test_a_separator_that_is_not_read_is_named(tmp_path):
    """Excel can be told to use any character."""
    (tmp_path / "a.csv").write_text("sep=^\nuser^item^timestamp\nu^i^1500000000\n")
    with pytest.raises(ConfigError, match=r"names '\^' as separator; write the file with one of tab"):
        recognise(str(tmp_path / "a.csv"), BuildConfig())


def test_decimal_commas_are_read_where_the_delimiter_is_another(tmp_path):
    """As spreadsheets of many countries write ratings and shares."""
    path = tmp_path / "a.csv"
    path.write_text(
        "user;item;timestamp;rating;completion\nu;i;1500000000;7,5;0,25\nu;j;1500000001;8;1\nu;k;1500000002;,5;\n"
    )
    read = read_all(path)
    assert [(row.rating, row.completion) for row in read.rows] == [(7.5, 0.25), (8.0, 1.0), (0.5, 1.0)]
    assert "decimal commas in rating, completion" in read.source.note


@pytest.mark.parametrize(
    ("values", "found"),
    [(["1,5", "2"], True), (["1,500", "2,25"], True), (["1,500", "2"], False), (["1,5", "2.5"], False),
     (["1,5", "n.a."], True), (["1,5,0"], False), (["five, or so", "1,5"], False), (["1"], False), ([], False)],
)  # fmt: skip
def test_a_comma_that_may_stand_between_thousands_is_no_decimal_comma(values, found):
    """1,500 alone may be either; such ratings are rejected as they were."""
    assert has_decimal_commas(values) is found


def test_zero_bytes_cost_only_their_rows(tmp_path):
    """A file that was not written to its end after a crash may end with many; in an id they are kept."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"user,item,timestamp\nu,i\x00,1500000000\nu,j,15000\x000\nu,k,1500000002\n" + bytes(3_000_000))
    read = read_all(path)
    assert [row.item for row in read.rows] == ["i\x00", "k"]
    assert read.reasons == [(3, "unparsable_time"), (5, "malformed_line")]


def test_a_workbook_is_refused_with_the_way_to_save_it(tmp_path):
    """Excel before and after 2007, OpenDocument; another zip archive is called so."""
    for name, inside in (("a.xlsx", ["xl/workbook.xml"]), ("a.ods", ["mimetype", "content.xml"]), ("a.zip", ["a.csv"])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in inside:
                archive.writestr(member, "")
    (tmp_path / "a.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(999))
    for name in ("a.xlsx", "a.ods", "a.xls"):
        with pytest.raises(ConfigError, match="a workbook; save the sheet with the events as CSV"):
            recognise(str(tmp_path / name), BuildConfig())
    with pytest.raises(ConfigError, match="a zip archive"):
        recognise(str(tmp_path / "a.zip"), BuildConfig())


@pytest.mark.parametrize("delimiter", [", ", "; ", "| "])
def test_the_space_after_every_delimiter_belongs_to_it(tmp_path, delimiter):
    """Where one delimiter has none, the spaces are part of the fields, and that is said."""
    rows = [("user", "item", "time", "rating"), *((f"u{i % 3}", "i", 1_500_000_000 + i, 3) for i in range(9))]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(delimiter.join(map(str, row)) for row in rows))
    read = read_all(path)
    assert [(row.item, row.rating) for row in read.rows] == [("i", 3)] * 9
    assert "and space between fields" in read.source.note
    path.write_text(path.read_text().replace(f"0{delimiter}3", f"0{delimiter[0]}3"))
    read = read_all(path)
    assert {row.item for row in read.rows} == {" i"}
    assert "1 of 1 sampled ids of item begin or end with spaces" in read.source.note


@pytest.mark.parametrize("above", ["# exported 2020-01-01\n# by me\n", "\n\n", "My list\n", '"Exported, by me"\n'])
def test_lines_above_the_names_are_refused_with_the_command_that_leaves_them_out(tmp_path, above):
    """It works as it is typed; a web page is called one."""
    path = tmp_path / "a.csv"
    path.write_text(above + "user,item,time\n" + "u,i,1500000000\n" * 3)
    with pytest.raises(ConfigError, match="no part of the table below") as caught:
        read_all(path)
    command = str(caught.value).partition("leave it out: ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert len(read_all(tmp_path / "events.csv").rows) == 3
    path.write_text("<!DOCTYPE html><html>\n<body>Login</body>\n")
    with pytest.raises(ConfigError, match="a web page, not a table"):
        read_all(path)


def test_backslashes_before_quotes_are_named_with_the_command_that_doubles_the_quotes(tmp_path):
    """As MySQL and Spark write them."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,time,review\n" + 'u,i,1500000000,"he said \\"hi\\"\nbye"\nv,j,1500000001,ok\n' * 3)
    read = read_all(path)
    (split, *_) = plan_splits([read.source])
    note = split.source.rows_note
    assert "one line is one row" in note
    assert read.rejected
    subprocess.run(note.partition("instead: ")[2], shell=True, cwd=tmp_path, check=True)
    read = read_all(tmp_path / "events.csv")
    assert len(read.rows) == 6
    assert not read.rejected
