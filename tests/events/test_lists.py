"""Rules that hold for the lists of all sites: users, dates, row numbers, bounds."""

import gzip
import io
import json
import zipfile
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_all import read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.event_paths import expand
from streamfeat.events.formats import recognise
from streamfeat.events.lists import dates, zip_members
from streamfeat.events.lists.entries import share
from streamfeat.events.user_histories import read_histories, read_several


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


def test_a_list_that_stands_newest_first_is_turned_round(tmp_path):
    """Its entries of one day are newest first, too; entries without a date stay in front, in the order of the file."""
    days = ["2016-03-05", "2016-03-04", "", "2016-03-04", "2016-03-04", "0000-00-00"]
    path = written(tmp_path / "list.xml", export(*(anime(number, day) for number, day in enumerate(days))))
    read = read_all(path)
    assert [row.item for row in read.rows] == ["2", "5", "4", "3", "1", "0"]
    assert "newest first, so turned round" in read.source.note
    path = written(tmp_path / "list.xml", export(*(anime(number, day) for number, day in enumerate(days[::-1]))))
    assert [row.item for row in read_all(path).rows] == ["0", "3", "1", "2", "4", "5"]


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
    numbers = export(*(anime(n, "2016-03-04", my_status=str(n)) for n in (1, 2, 3, 4, 6)))
    statuses = [row.status for row in read_all(written(tmp_path / "numbers.xml", numbers)).rows]
    assert statuses == ["watching", "completed", "on_hold", "dropped", "planned"]
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
        (tmp_path / "rin" / "myanimelist.xml", "", "rin"),
        (tmp_path / "kitsu-mei-li-anime.xml", "", "mei-li"),
        (tmp_path / "letterboxd-sara-2024-05-01-10-00-utc" / "lists.xml", "", "sara"),
        (tmp_path / "7.xml", "", "7"),
        (tmp_path / "j.r.r.tolkien.xml.gz", "", "j.r.r.tolkien"),
        (tmp_path / "anime fan 7.xml", "", "anime fan 7"),
    ]
    for path, account, user in named:
        data = export(anime(1, "2016-03-04"), user=account)
        read = read_all(written(path, gzip.compress(data) if path.suffix == ".gz" else data))
        assert [row.user for row in read.rows] == [user]


def test_a_constant_stands_for_what_the_list_says(tmp_path):
    """One person's lists under one name; entries without a date take the time of the person's first dated one."""
    path = written(tmp_path / "list.xml", export(anime(1), anime(2, "2016-03-04")))
    read = read_all(path, constant={"user": "me", "medium": "show"})
    assert [(row.user, row.medium, row.time) for row in read.rows] == [("me", "show", 1457049600)] * 2
    assert "user 'me' (as given)" in read.source.note


def test_a_column_of_users_in_a_sites_csv_names_them(tmp_path):
    """Someone joined the exports of several people."""
    lines = [
        line + "," + user for line, user in zip(DIARY.splitlines() * 2, ["User Name", "mika", "", "yui"], strict=True)
    ]
    path = written(tmp_path / "all.csv", "\n".join([*lines[:2], lines[3]]).encode())
    assert [row.user for row in read_all(path).rows] == ["mika", "yui"]


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


def test_a_folder_of_lists_is_one_dataset_with_a_user_each(tmp_path):
    """Anime and manga of one account are one user; a list may have fields that others lack."""
    for user in ("mika", "yui"):
        written(tmp_path / "lists" / f"{user}.xml", export(anime(1, "2016-03-04"), anime(2, my_score="7"), user=user))
    manga = "<manga><manga_mangadb_id>1</manga_mangadb_id><my_finish_date>2015-01-02</my_finish_date></manga>"
    written(tmp_path / "lists" / "more.xml", export(manga, user="yui"))
    found = read_several(expand([str(tmp_path / "lists")]), BuildConfig(), medium=None)
    assert found.users == ["mika", "yui"]
    assert found.items == [("anime", "2"), ("anime", "1"), ("manga", "1")]
    assert found.offsets.tolist() == [0, 2, 5]


def test_of_many_lists_only_the_first_are_told_about(tmp_path):
    """A thousand lines would hide the line that matters."""
    for number in range(8):
        written(tmp_path / "lists" / f"{number}.xml", export(anime(1, "2016-03-04"), user=f"user{number}"))
    found = read_several(expand([str(tmp_path / "lists")]), BuildConfig(), medium=None)
    assert "user4" in found.recognised
    assert "user5" not in found.recognised
    assert "3 more lists of MyAnimeList" in found.recognised


def test_a_list_serves_recommend_and_takes_the_asked_time_where_it_has_no_date(tmp_path):
    """`undated` stands for it."""
    path = written(tmp_path / "list.xml.gz", gzip.compress(export(anime(1), anime(2))))
    found = read_histories(path, BuildConfig(undated="2026-01-01T12:00:00Z"), medium=None)
    assert found.time.tolist() == [1767268800, 1767268800]


def test_lists_of_two_sites_with_one_medium_are_refused(tmp_path):
    """The same id is another anime on each of them; films beside anime are fine."""
    one = written(tmp_path / "a.xml", export(anime(1, "2016-03-04")))
    games = [{"appid": 10, "name": "Mine", "playtime_forever": 620, "rtime_last_played": 1420167845}]
    two = written(tmp_path / "b.json", json.dumps({"response": {"games": games}}).encode())
    assert len(read_several(expand([str(one), str(two)]), BuildConfig(), medium=None).users) == 2
    entry = {"series_id": 1, "series_type": 0, "status": 2, "updated_at": "2015-01-02 03:04:05"}
    three = written(tmp_path / "c.json", json.dumps({"user": {"display_name": "yui"}, "lists": [entry]}).encode())
    with pytest.raises(ConfigError, match="both hold anime: the same id is another item"):
        read_several(expand([str(one), str(three)]), BuildConfig(), medium=None)


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, str]) -> Path:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("profile.csv", "Date Joined,Username\n2014-01-01,mika\n")
        for name, text in members:
            archive.writestr(name, text)
    return written(path, out.getvalue())


DIARY = "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Tags,Watched Date\n2015-01-05,Fog,2003,https://x,3,,,2015-01-02\n"


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def test_an_archive_is_read_within_bounds(tmp_path, monkeypatch):
    """Nothing is written, no path is followed, and no archive fills the memory."""
    assert len(read_all(zipped(tmp_path / "good.zip", ("diary.csv", DIARY))).rows) == 1
    bad = [
        (("../diary.csv", DIARY), "leads out of the archive"),
        (("/diary.csv", DIARY), "leads out of the archive"),
        (("C:/diary.csv", DIARY), "leads out of the archive"),
        ((link("diary.csv"), "/etc/passwd"), "is a link"),
        (("diary.csv", DIARY + "0" * (1 << 22)), "compressed more than 200 times"),
    ]
    for member, why in bad:
        with pytest.raises(DataError, match=why):
            read_all(zipped(tmp_path / "bad.zip", member))
    monkeypatch.setattr(zip_members, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match="has 3 members, more than 2"):
        read_all(zipped(tmp_path / "many.zip", ("a.csv", ""), ("b.csv", "")))


def test_an_archive_of_lists_of_one_site_is_one_list(tmp_path):
    """Simkl, Spotify and Netflix hand out archives; other files in them do not matter."""
    plays = [{"endTime": f"2015-01-0{day} 03:04", "artistName": "A", "trackName": "B", "msPlayed": 5} for day in (1, 2)]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MyData/StreamingHistory1.json", json.dumps(plays[1:]))
        archive.writestr("MyData/StreamingHistory0.json", json.dumps(plays[:1]))
        archive.writestr("MyData/Userdata.json", '{"username": "x"}')
        archive.writestr("MyData/ReadMe.pdf", "x")
    read = read_all(written(tmp_path / "mika" / "my_spotify_data.zip", out.getvalue()))
    assert [(row.user, row.time) for row in read.rows] == [("mika", 1420081440), ("mika", 1420167840)]
    assert "archive with streaming history" in read.source.note


def test_a_damaged_archive_and_one_of_no_list_say_what_to_do(tmp_path):
    """Cut short in a download; or events in a zip."""
    data = zipped(tmp_path / "good.zip", ("diary.csv", DIARY)).read_bytes()
    with pytest.raises(DataError, match=r"archive is damaged .* export it again"):
        read_all(written(tmp_path / "short.zip", data[:-30]))
    broken = bytearray(data)
    broken[data.index(b"diary.csv") + 20] ^= 0xFF
    with pytest.raises(DataError, match="archive is damaged"):
        read_all(written(tmp_path / "broken.zip", bytes(broken)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("events.csv", "user,item,timestamp\n1,2,1400000000\n")
    with pytest.raises(ConfigError, match="unpack it"):
        read_all(written(tmp_path / "events.zip", out.getvalue()))


def test_a_list_in_csv_with_a_malformed_record_loses_no_neighbour(tmp_path):
    """A record of another width has no item; a stray quote is named."""
    path = written(tmp_path / "diary.csv", (DIARY + "2015-01-06,Umi\n" + DIARY.splitlines()[1] + "\n").encode())
    read = read_all(path)
    assert len(read.rows) == 2
    assert read.reasons == [(2, "missing_item")]
    path = written(tmp_path / "diary.csv", DIARY.replace("Fog", '"Fog" II').encode())
    with pytest.raises(DataError, match="record 1 has malformed quotes"):
        read_all(path)


def test_a_list_in_another_encoding(tmp_path):
    """UTF-16 by its mark; others are named, with the option that reads them."""
    data = DIARY.replace("Fog", "Brouillard été")
    assert read_all(written(tmp_path / "a.csv", data.encode("utf-16"))).rows[0].title == "Brouillard été (2003)"
    path = written(tmp_path / "b.csv", data.encode("cp1252"))
    with pytest.raises(DataError, match="--encoding cp1252"):
        read_all(path)
    assert read_all(path, encoding="cp1252").rows[0].title == "Brouillard été (2003)"


def test_a_table_that_names_its_columns_is_no_list(tmp_path):
    """`--columns` or `--format csv` read any CSV as a table of events."""
    path = written(tmp_path / "diary.csv", DIARY.encode())
    columns = {"user": "Letterboxd URI", "item": "Name", "timestamp": "Watched Date"}
    assert read_all(path, columns=columns).source.format == "csv"


@settings(deadline=None)
@given(
    st.lists(st.dates(date(2000, 1, 1), date(2060, 12, 31)), min_size=1, max_size=12),
    st.sampled_from(
        ["{d}/{m}/{y}", "{m}/{d}/{y}", "{d:02d}.{m:02d}.{s:02d}", "{m}/{d}/{s:02d}", "{y}-{m:02d}-{d:02d}"]
    ),
)
def test_dates_of_an_export_newest_first_are_read_rightly_or_refused(days, form):
    """In any of the forms that sites write for the countries of their users; missing ones stay missing."""
    days.sort(reverse=True)
    values = [form.format(d=day.day, m=day.month, y=day.year, s=day.year % 100) for day in days]
    try:
        found = dates.days_of("x.csv", [*values, ""])
    except DataError:
        return
    assert found == [*(day.isoformat() for day in days), ""]


@given(st.text(max_size=6) | st.floats().map(str) | st.integers().map(str), st.floats().map(str) | st.just(""))
def test_a_share_is_from_0_to_1_or_missing(done, total):
    """Whatever a list says."""
    found = share(done, total)
    assert found == "" or 0 <= float(found) <= 1
