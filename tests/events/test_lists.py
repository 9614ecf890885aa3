"""Rules that hold for the lists of all sites: users, dates, row numbers, bounds."""

import gzip
from pathlib import Path

import pytest
from read_all import read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.formats import recognise


def anime(number: int, finish: str = "0000-00-00", start: str = "0000-00-00", **fields: str) -> str:
    """One anime of an invented MyAnimeList export."""
    values = {
        "series_animedb_id": str(number),
        "series_title": f"<![CDATA[Show {number}]]>",
        "series_episodes": "24",
        "my_watched_episodes": "12",
        "my_start_date": start,
        "my_finish_date": finish,
        "my_score": "0",
        "my_status": "Completed",
    } | fields
    return "<anime>" + "".join(f"<{name}>{value}</{name}>" for name, value in values.items()) + "</anime>"


def export(*entries: str, user: str = "mika", before: str = "") -> bytes:
    """An invented MyAnimeList export."""
    info = f"<myinfo><user_id>7</user_id><user_name>{user}</user_name></myinfo>" if user else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8" ?>\n{before}<myanimelist>{info}{"".join(entries)}</myanimelist>'.encode()
    )


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_an_entry_without_a_date_stands_before_the_users_first_dated_one_with_its_time(tmp_path):
    """In file order; a date without a day is its first day."""
    data = export(anime(1), anime(2, "2016-03-04"), anime(3), anime(4, start="2015-04-00"))
    read = read_all(written(tmp_path / "list.xml", data))
    assert [(row.item, row.time) for row in read.rows] == [
        ("1", 1427846400),  # 2015-04-01
        ("3", 1427846400),
        ("2", 1457049600),  # 2016-03-04
        ("4", 1427846400),
    ]
    assert "2 without a date" in read.source.note


def test_a_list_without_any_date_is_rejected_unless_undated_says_which(tmp_path):
    """As a missing time, with the record's place in the file."""
    path = written(tmp_path / "list.xml", export(anime(1), anime(2)))
    assert read_all(path).reasons == [(1, "missing_time"), (2, "missing_time")]
    assert [row.time for row in read_all(path, undated="2015-04-30").rows] == [1430352000, 1430352000]
    with pytest.raises(ValueError, match="2015-04-30"):
        BuildConfig(undated="yesterday")


def test_a_rejected_entry_has_the_number_of_its_record_also_where_rows_are_moved(tmp_path):
    """Entries without a date are moved to the front."""
    data = export(anime(1, "2016-03-04"), anime(2, "2016-02-31"), anime(3, my_status="Wishing"), anime(4))
    read = read_all(written(tmp_path / "list.xml", data), batch_rows=2)
    assert [row.item for row in read.rows] == ["4", "1"]
    assert [(reject.row, reject.reason, reject.value) for reject in read.rejected] == [
        (3, "unknown_status", "Wishing"),
        (2, "unparsable_time", "2016-02-31"),
    ]


def test_the_user_is_the_account_or_else_the_name_of_the_file_or_of_its_folder(tmp_path):
    """Everyone's file may be called animelist.xml."""
    named = [
        (tmp_path / "a.xml", "mika", "mika"),
        (tmp_path / "yui.xml.gz", "", "yui"),
        (tmp_path / "ren" / "animelist_1.xml", "", "ren"),
        (tmp_path / "aoi" / "MyData" / "animelist.xml", "", "aoi"),
    ]
    for path, account, user in named:
        data = export(anime(1, "2016-03-04"), user=account)
        read = read_all(written(path, gzip.compress(data) if path.suffix == ".gz" else data))
        assert [row.user for row in read.rows] == [user]


def test_xml_with_a_document_type_is_refused(tmp_path):
    """It can name entities, which stand for other files or grow without bound."""
    bomb = '<!DOCTYPE myanimelist [<!ENTITY a "aaaa"><!ENTITY b SYSTEM "file:///etc/passwd">]>\n'
    path = written(tmp_path / "list.xml", export(anime(1, series_title="&b;"), before=bomb))
    with pytest.raises(DataError, match="document type"):
        read_all(path)


def test_damaged_xml_says_what_to_do(tmp_path):
    """A download that was cut short."""
    path = written(tmp_path / "list.xml", export(anime(1), anime(2))[:-20])
    with pytest.raises(DataError, match=r"cannot be read .* export the list again"):
        read_all(path)


def test_a_list_keeps_its_roles(tmp_path):
    """Its fields are known, so --columns is refused; so is another format."""
    path = str(written(tmp_path / "list.xml", export(anime(1))))
    with pytest.raises(ConfigError, match="leave out --columns"):
        recognise(path, BuildConfig(columns={"user": "user_name"}))
    with pytest.raises(ConfigError):
        recognise(path, BuildConfig(format="movielens-100k"))
    events = written(tmp_path / "events.csv", b"user,item,timestamp\n1,2,1400000000\n")
    with pytest.raises(ConfigError, match="no list of MyAnimeList"):
        recognise(str(events), BuildConfig(format="myanimelist"))
