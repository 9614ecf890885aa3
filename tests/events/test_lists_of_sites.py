"""Each site's lists, in its own form: what becomes of every field. All entries are invented."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from read_all import Row, read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import DataError
from streamfeat.events.formats import recognise
from streamfeat.events.lists.sites import SITES


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def dumped(path: Path, value: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    return written(path, json.dumps(value, indent=2))


def seconds(*rows: Row) -> list[int]:
    return [row.time for row in rows]


ANIME = """<?xml version="1.0" encoding="UTF-8" ?>
<!-- Created by XML Export feature -->
<myanimelist>
  <myinfo>
    <user_id>7</user_id><user_name>mika</user_name><user_export_type>1</user_export_type>
    <user_total_anime>3</user_total_anime>
  </myinfo>
  <anime>
    <series_animedb_id>101</series_animedb_id>
    <series_title><![CDATA[Sea & Sky]]></series_title>
    <series_type>TV</series_type>
    <series_episodes>24</series_episodes>
    <my_id>0</my_id>
    <my_watched_episodes>24</my_watched_episodes>
    <my_start_date>2015-01-02</my_start_date>
    <my_finish_date>2015-02-03</my_finish_date>
    <my_score>9</my_score>
    <my_status>Completed</my_status>
    <my_comments><![CDATA[]]></my_comments>
  </anime>
  <anime>
    <series_animedb_id>102</series_animedb_id>
    <series_title><![CDATA[Long Road]]></series_title>
    <series_episodes>0</series_episodes>
    <my_watched_episodes>30</my_watched_episodes>
    <my_start_date>2016-01-02</my_start_date>
    <my_finish_date>0000-00-00</my_finish_date>
    <my_score>0</my_score>
    <my_status>On-Hold</my_status>
  </anime>
  <anime>
    <series_animedb_id>103</series_animedb_id>
    <series_title><![CDATA[Later]]></series_title>
    <series_episodes>12</series_episodes>
    <my_watched_episodes>0</my_watched_episodes>
    <my_start_date>0000-00-00</my_start_date>
    <my_finish_date>0000-00-00</my_finish_date>
    <my_score>0</my_score>
    <my_status>Plan to Watch</my_status>
  </anime>
</myanimelist>
"""

MANGA = """<?xml version="1.0" encoding="UTF-8" ?>
<myanimelist>
  <myinfo><user_name>mika</user_name><user_export_type>2</user_export_type></myinfo>
  <manga>
    <manga_mangadb_id>101</manga_mangadb_id>
    <manga_title><![CDATA[Ink]]></manga_title>
    <manga_volumes>2</manga_volumes><manga_chapters>40</manga_chapters>
    <my_read_volumes>1</my_read_volumes><my_read_chapters>10</my_read_chapters>
    <my_start_date>2017-01-02</my_start_date><my_finish_date>0000-00-00</my_finish_date>
    <my_score>7</my_score><my_status>Reading</my_status>
  </manga>
</myanimelist>
"""


def test_myanimelist_anime_and_manga(tmp_path):
    """A score of 0 is none, episodes of an unknown total are no completion, and words have the same statuses."""
    assert read_all(written(tmp_path / "anime.xml", ANIME)).rows == [
        Row("mika", "103", 1422921600, None, "anime", "planned", 0.0, "Later"),
        Row("mika", "101", 1422921600, 9.0, "anime", "completed", 1.0, "Sea & Sky"),
        Row("mika", "102", 1451692800, None, "anime", "on_hold", 1.0, "Long Road"),
    ]
    assert read_all(written(tmp_path / "manga.xml", MANGA)).rows == [
        Row("mika", "101", 1483315200, 7.0, "manga", "watching", 0.25, "Ink"),
    ]


def test_goodreads(tmp_path):
    """0 stars is no rating; an unread book is planned; the year of a title is that of the original."""
    text = (
        "Book Id,Title,Author,ISBN,My Rating,Year Published,Original Publication Year,Date Read,Date Added,Bookshelves,"
        "Exclusive Shelf,My Review\n"
        '11,"Tides, Part 1",Ann Author,="",4,2009,1999,2015/01/02,2014/12/30,,read,"Two lines,\nof a review"\n'
        "12,Ashes,Ben Author,,0,2010,,,2015/02/03,to-read,to-read,\n"
        "13,Salt,Cy Author,,0,,,,2015/03/04,,currently-reading,\n"
    )
    assert read_all(written(tmp_path / "mika.csv", text)).rows == [
        Row("mika", "11", 1420156800, 4.0, "book", "completed", title="Tides, Part 1 (1999)"),
        Row("mika", "12", 1422921600, None, "book", "planned", title="Ashes (2010)"),
        Row("mika", "13", 1425427200, None, "book", "watching", title="Salt"),
    ]


def test_imdb_ratings_and_watchlist(tmp_path):
    """The title type is the medium; what is listed without a rating is planned."""
    ratings = (
        "Const,Your Rating,Date Rated,Title,Original Title,URL,Title Type,IMDb Rating,Runtime (mins),Year,Genres\n"
        'tt0000001,8,2015-01-02,"Harbour, The",Harbour,https://x,Movie,7.0,90,1999,"Drama, Crime"\n'
        "tt0000002,6,2015-02-03,Lights,Lights,https://x,TV Series,7.0,45,2001,Drama\n"
    )
    assert read_all(written(tmp_path / "mika.csv", ratings)).rows == [
        Row("mika", "tt0000001", 1420156800, 8.0, "film", title="Harbour, The (1999)"),
        Row("mika", "tt0000002", 1422921600, 6.0, "series", title="Lights (2001)"),
    ]
    watchlist = (
        "Position,Const,Created,Modified,Description,Title,Original Title,URL,Title Type,Year,Your Rating,Date Rated\n"
        "1,tt0000003,2015-03-04,2015-03-04,,Fog,Fog,https://x,Video Game,2003,,\n"
        "2,tt0000001,2015-03-05,2015-03-05,,Harbour,Harbour,https://x,Movie,1999,8,2015-01-02\n"
    )
    assert read_all(written(tmp_path / "mika.csv", watchlist)).rows == [
        Row("mika", "tt0000003", 1425427200, None, "game", "planned", title="Fog (2003)"),
        Row("mika", "tt0000001", 1420156800, 8.0, "film", title="Harbour (1999)"),
    ]


DIARY = (
    "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Tags,Watched Date\n"
    '2015-01-05,"Harbour, The",1999,https://boxd.it/e1,3.5,,"a, b",2015-01-02\n'
    "2015-02-05,Lights,2001,https://boxd.it/e2,,Yes,,2015-02-03\n"
)
RATINGS = (
    "Date,Name,Year,Letterboxd URI,Rating\n"
    "2015-02-06,Lights,2001,https://boxd.it/f2,4\n2015-03-06,Fog,2003,https://boxd.it/f3,2\n"
)
WATCHED = "Date,Name,Year,Letterboxd URI\n2015-03-05,Fog,2003,https://boxd.it/f3\n"
WATCHLIST = "Date,Name,Year,Letterboxd URI\n2015-04-05,Dunes,2020,https://boxd.it/f4\n"


def test_letterboxd_files(tmp_path):
    """A film is its title and year in each of them; the watchlist has the columns of the watched films."""
    assert read_all(written(tmp_path / "mika.csv", DIARY)).rows == [
        Row("mika", "Harbour, The (1999)", 1420156800, 3.5, "film", title="Harbour, The (1999)"),
        Row("mika", "Lights (2001)", 1422921600, None, "film", title="Lights (2001)"),
    ]
    (tmp_path / "yui").mkdir()
    for name, text, status in (("watched.csv", WATCHED, "completed"), ("watchlist.csv", WATCHLIST, "planned")):
        (row,) = read_all(written(tmp_path / "yui" / name, text)).rows
        assert (row.user, row.status) == ("yui", status)
    assert [row.rating for row in read_all(written(tmp_path / "yui" / "ratings.csv", RATINGS)).rows] == [4.0, 2.0]


def archive(**members: str) -> bytes:
    """A zip archive; `.` in a name is written as `_`, and a folder as `__`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in members.items():
            made.writestr(name.replace("__", "/").replace("_csv", ".csv"), text)
    return out.getvalue()


def test_letterboxd_archive(tmp_path):
    """A film in diary and ratings is one event, with its rating where the diary has none."""
    profile = "Date Joined,Username,Given Name\n2014-01-01,mika,Mika\n"
    path = tmp_path / "letterboxd-export.zip"
    path.write_bytes(
        archive(
            profile_csv=profile, diary_csv=DIARY, ratings_csv=RATINGS, watched_csv=WATCHED, watchlist_csv=WATCHLIST,
            deleted__diary_csv=DIARY.replace("Lights", "Gone"), likes__films_csv=WATCHED.replace("Fog", "Liked"),
        )
    )  # fmt: skip
    read = read_all(path)
    assert read.rows == [
        Row("mika", "Harbour, The (1999)", 1420156800, 3.5, "film", title="Harbour, The (1999)"),
        Row("mika", "Lights (2001)", 1422921600, 4.0, "film", title="Lights (2001)"),
        Row("mika", "Fog (2003)", 1425513600, 2.0, "film", title="Fog (2003)"),
        Row("mika", "Dunes (2020)", 1428192000, None, "film", "planned", title="Dunes (2020)"),
    ]
    assert "user 'mika' (its account)" in read.source.note
    assert "left out" not in read.source.note
    path.write_bytes(archive(diary_csv=DIARY, NetflixViewingHistory_csv='Title,Date\n"Dunes","15/04/2015"\n'))
    assert "its lists of Netflix are left out (--format netflix reads them)" in recognise(str(path), BuildConfig()).note
    assert [row.item for row in read_all(path, format="netflix").rows] == ["Dunes"]


def test_trakt_csv(tmp_path):
    """An episode is an event of its show; ratings of episodes are not the show's."""
    ids = "trakt_id,imdb_id,tmdb_id,season_number,episode_number,episode_title,episode_trakt_id"
    history = (
        f"watched_at,action,type,title,year,trakt_rating,{ids}\n"
        "2015-01-02T03:04:05.000Z,watch,movie,Harbour,1999,7.1,501,tt1,1,,,,\n"
        "2015-01-03T00:00:00.000Z,scrobble,episode,Lights,2001,8.1,502,tt2,2,1,3,Third,9003\n"
    )
    assert read_all(written(tmp_path / "mika.csv", history)).rows == [
        Row("mika", "501", 1420167845, None, "film", title="Harbour (1999)"),
        Row("mika", "502", 1420243200, None, "series", title="Lights (2001)"),
    ]
    ratings = (
        f"rated_at,type,title,year,trakt_rating,{ids},rating\n"
        "2015-01-02T00:00:00Z,show,Lights,2001,8.1,502,tt2,2,,,,,9\n"
        "2015-01-03T00:00:00Z,episode,Lights,2001,8.1,502,tt2,2,1,3,Third,9003,2\n"
    )
    read = read_all(written(tmp_path / "mika.csv", ratings))
    assert [(row.item, row.rating) for row in read.rows] == [("502", 9.0)]
    assert "1 ratings of seasons and episodes left out" in read.source.note


def test_trakt_json(tmp_path):
    """History, watched shows with their episodes, and the watchlist."""
    harbour = {"title": "Harbour", "year": 1999, "ids": {"trakt": 501, "slug": "harbour", "imdb": "tt1"}}
    lights = {"title": "Lights", "year": 2001, "ids": {"trakt": 502}}
    history = [
        {"id": 1, "watched_at": "2015-01-02T03:04:05.000Z", "action": "watch", "type": "movie", "movie": harbour},
        {
            "id": 2, "watched_at": "2015-01-03T00:00:00.000Z", "action": "scrobble", "type": "episode",
            "episode": {"season": 1, "number": 3, "title": "Third", "ids": {"trakt": 9003}}, "show": lights,
        },
    ]  # fmt: skip
    assert read_all(dumped(tmp_path / "mika.json", history)).rows == [
        Row("mika", "501", 1420167845, None, "film", title="Harbour (1999)"),
        Row("mika", "502", 1420243200, None, "series", title="Lights (2001)"),
    ]
    episodes = [{"number": n, "plays": 1, "last_watched_at": f"2015-01-0{n}T00:00:00.000Z"} for n in (3, 4)]
    watched = [
        {
            "plays": 2, "last_watched_at": "2015-01-04T00:00:00.000Z", "show": lights,
            "seasons": [{"number": 1, "episodes": episodes}],
        }
    ]  # fmt: skip
    assert seconds(*read_all(dumped(tmp_path / "mika.json", watched)).rows) == [1420243200, 1420329600]
    listed = [{"rank": 1, "listed_at": "2015-01-04T00:00:00.000Z", "type": "movie", "movie": harbour}]
    assert [row.status for row in read_all(dumped(tmp_path / "mika.json", listed)).rows] == ["planned"]


def test_spotify_both_histories_name_a_track_alike(tmp_path):
    """By artist and title, because one recording has many ids. Podcasts are their show; plays without a name go."""
    account = [
        {"endTime": "2015-01-02 03:04", "artistName": "The Ants", "trackName": "Hill", "msPlayed": 61000},
        {"endTime": "2015-01-02 04:00", "podcastName": "Talk", "episodeName": "One", "msPlayed": 61000},
    ]
    assert read_all(dumped(tmp_path / "mika" / "StreamingHistory0.json", account)).rows == [
        Row("mika", "The Ants – Hill", 1420167840, None, "track", title="The Ants – Hill"),
        Row("mika", "Talk", 1420171200, None, "podcast", title="Talk"),
    ]
    base = {"username": "mika77", "platform": "ios", "ms_played": 5, "episode_name": None, "episode_show_name": None}
    names = {"master_metadata_track_name": "Hill", "master_metadata_album_artist_name": "The Ants"}
    nothing = dict.fromkeys(names)
    extended = [
        base | names | {"ts": "2015-01-02T03:04:05Z", "spotify_track_uri": "spotify:track:1"},
        base | nothing | {"ts": "2015-01-02T04:00:00Z", "episode_name": "One", "episode_show_name": "Talk"},
        base | nothing | {"ts": "2015-01-02T05:00:00Z"},
    ]
    read = read_all(dumped(tmp_path / "Streaming_History_Audio_2015_0.json", extended))
    assert [(row.user, row.item, row.medium) for row in read.rows] == [
        ("mika77", "The Ants – Hill", "track"),
        ("mika77", "Talk", "podcast"),
    ]
    assert "1 plays without a name left out" in read.source.note


def test_lastfm_both_forms(tmp_path):
    """Without a header as with one. What is playing now has no date and is left out."""
    plain = 'The Ants,Nest,Hill,"02 Jan 2015, 03:04"\nThe Ants,Nest,"Say ""Hi""",02 Jan 2015 03:00\nThe Ants,,Now,\n'
    read = read_all(written(tmp_path / "mika.csv", plain))
    assert [(row.item, row.time) for row in read.rows] == [
        ("The Ants – Hill", 1420167840),
        ('The Ants – Say "Hi"', 1420167600),
    ]
    assert "1 without a date left out" in read.source.note
    header = "uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid\n"
    text = header + '"1420167840","02 Jan 2015, 03:04","The Ants","","Nest","","Hill",""\n'
    assert read_all(written(tmp_path / "mika.csv", text)).rows == read.rows[:1]


def test_netflix_activity(tmp_path):
    """A profile is a user; an episode an event of its series; trailers are left out."""
    text = (
        "Profile Name,Start Time,Duration,Attributes,Title,Supplemental Video Type,Device Type,Bookmark,"
        "Latest Bookmark,Country\n"
        "Mika,2015-01-02 03:04:05,00:40:00,,Lights: Season 1: Third,,TV,00:40:00,00:40:00,FI (Finland)\n"
        "Yui,2015-01-03 00:00:00,01:30:00,,Star: Return,,TV,01:30:00,01:30:00,FI (Finland)\n"
        "Yui,2015-01-04 00:00:00,00:00:30,,Fog_hook_primary,HOOK,TV,00:00:30,00:00:30,FI (Finland)\n"
    )
    read = read_all(written(tmp_path / "ViewingActivity.csv", text))
    assert read.rows == [
        Row("Mika", "Lights", 1420167845, None, "series", title="Lights"),
        Row("Yui", "Star: Return", 1420243200, None, "film", title="Star: Return"),
    ]
    assert "2 users" in read.source.note
    assert "1 trailers and the like left out" in read.source.note


@pytest.mark.parametrize(
    ("written_days", "days"),
    [
        (["1/25/15", "1/2/15"], ["2015-01-25", "2015-01-02"]),  # no 25th month
        (["25/01/2015", "02/01/2015"], ["2015-01-25", "2015-01-02"]),
        (["4/3/15", "3/2/15", "1/5/15"], ["2015-04-03", "2015-03-02", "2015-01-05"]),  # newest first: month first
        (["05.04.15", "04.04.15", "11.03.15"], ["2015-04-05", "2015-04-04", "2015-03-11"]),
        (["5/5/15"], ["2015-05-05"]),
    ],
)
def test_netflix_days_in_either_order(tmp_path, written_days, days):
    """What all dates allow decides, then that the newest stand first."""
    text = "Title,Date\n" + "".join(f'"Film {i}","{day}"\n' for i, day in enumerate(written_days))
    read = read_all(written(tmp_path / "NetflixViewingHistory.csv", text))
    dated = read_all(
        written(tmp_path / "iso.csv", "Title,Date\n" + "".join(f"Film {i},{d}\n" for i, d in enumerate(days)))
    )
    assert seconds(*read.rows) == seconds(*dated.rows)


def test_netflix_days_that_nothing_decides_are_refused(tmp_path):
    """With the form that works."""
    path = written(tmp_path / "NetflixViewingHistory.csv", "Title,Date\nFog,4/3/15\n")
    with pytest.raises(DataError, match=r"'4/3/15' can be read with the day or with the month first; .* 2015-03-04"):
        read_all(path)


def media(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "title": {"romaji": f"Umi {number}", "english": None}, "seasonYear": 2014, **more}


def test_anilist_answer_of_the_api(tmp_path):
    """Dates may lack the day; an entry of a custom list is one of another list again."""
    none = {"year": None, "month": None, "day": None}
    one = {
        "mediaId": 101, "status": "COMPLETED", "score": 90, "progress": 12, "startedAt": none,
        "completedAt": {"year": 2015, "month": 4, "day": None}, "updatedAt": 1500000000,
        "media": media(101, type="ANIME", episodes=12),
    }  # fmt: skip
    two = {
        "mediaId": 102, "status": "PAUSED", "score": 0, "progress": 3, "startedAt": none, "completedAt": none,
        "updatedAt": 1420167845, "media": media(102, type="MANGA", chapters=12),
    }  # fmt: skip
    three = two | {
        "mediaId": 103,
        "status": "PLANNING",
        "progress": 0,
        "updatedAt": 0,
        "media": media(103, type="ANIME"),
    }
    lists = [
        {"name": "Completed", "status": "COMPLETED", "entries": [one]},
        {"name": "Rest", "entries": [two, three]},
        {"name": "Favourites", "isCustomList": True, "status": None, "entries": [one]},
    ]
    answer = {"data": {"MediaListCollection": {"lists": lists, "user": {"name": "mika"}}}}
    expected = [
        Row("mika", "103", 1420167845, None, "anime", "planned", title="Umi 103 (2014)"),
        Row("mika", "101", 1427846400, 90.0, "anime", "completed", 1.0, title="Umi 101 (2014)"),
        Row("mika", "102", 1420167845, None, "manga", "on_hold", 0.25, title="Umi 102 (2014)"),
    ]
    assert read_all(dumped(tmp_path / "a.json", answer)).rows == expected
    page = {"data": {"Page": {"pageInfo": {"total": 3}, "mediaList": [one, two, three]}, "User": {"name": "mika"}}}
    assert read_all(dumped(tmp_path / "b.json", page)).rows == expected


def test_anilist_export_of_an_account(tmp_path):
    """Its numbers are not those of other sites: 0 is watched now, 1 planned, 2 completed."""
    base = {"series_type": 0, "progress": 3, "started_on": 0, "finished_on": 0, "updated_at": "2015-01-02 03:04:05"}
    lists = [base | {"series_id": 100 + n, "status": n, "score": 10 * n} for n in range(6)]
    lists[1] |= {"series_type": 1, "finished_on": 20150403}
    export = {"user": {"id": 7, "display_name": "mika"}, "stats": [], "lists": lists}
    rows = read_all(dumped(tmp_path / "gdpr_data.json", export)).rows
    assert [(row.user, row.item, row.medium, row.status, row.rating) for row in rows] == [
        ("mika", "100", "anime", "watching", None),
        ("mika", "101", "manga", "planned", 10.0),
        ("mika", "102", "anime", "completed", 20.0),
        ("mika", "103", "anime", "dropped", 30.0),
        ("mika", "104", "anime", "on_hold", 40.0),
        ("mika", "105", "anime", "watching", 50.0),
    ]
    assert seconds(*rows[:2]) == [1420167845, 1428019200]


def test_kitsu_answer_of_the_api(tmp_path):
    """The medium and its title come from what is included."""
    value = {
        "data": [
            {
                "id": "1", "type": "libraryEntries",
                "attributes": {
                    "status": "completed", "progress": 12, "ratingTwenty": 17, "finishedAt": "2015-01-02T03:04:05.000Z",
                    "progressedAt": "2015-01-03T00:00:00.000Z",
                },
                "relationships": {"anime": {"data": {"type": "anime", "id": "101"}}, "manga": {"data": None}},
            },
            {
                "id": "2", "type": "libraryEntries",
                "attributes": {
                    "status": "on_hold", "progress": 5, "ratingTwenty": None, "finishedAt": None,
                    "progressedAt": "2015-01-03T00:00:00.000Z",
                },
                "relationships": {"manga": {"data": {"type": "manga", "id": "102"}}},
            },
        ],
        "included": [
            {"id": "7", "type": "users", "attributes": {"name": "mika"}},
            {
                "id": "101", "type": "anime",
                "attributes": {"canonicalTitle": "Umi", "episodeCount": 12, "startDate": "2014-04-01"},
            },
            {"id": "102", "type": "manga", "attributes": {"canonicalTitle": "Yama", "chapterCount": 20}},
        ],
    }  # fmt: skip
    assert read_all(dumped(tmp_path / "library.json", value)).rows == [
        Row("mika", "101", 1420167845, 17.0, "anime", "completed", 1.0, title="Umi (2014)"),
        Row("mika", "102", 1420243200, None, "manga", "on_hold", 0.25, title="Yama"),
    ]


def test_simkl_backup(tmp_path):
    """Shows, anime and films keep their media."""
    value = {
        "shows": [
            {
                "added_to_watchlist_at": "2014-01-01T00:00:00Z", "last_watched_at": "2015-01-02T03:04:05Z",
                "user_rating": 8, "status": "hold", "watched_episodes_count": 5, "total_episodes_count": 20,
                "show": {"title": "Lights", "year": 2001, "ids": {"simkl": 502, "imdb": "tt2"}},
            }
        ],
        "anime": [
            {
                "added_to_watchlist_at": "2014-01-01T00:00:00Z", "last_watched_at": None, "user_rating": None,
                "status": "plantowatch", "watched_episodes_count": 0, "total_episodes_count": 12,
                "show": {"title": "Umi", "year": 2014, "ids": {"simkl": 101}},
            }
        ],
        "movies": [
            {
                "last_watched_at": "2015-01-03T00:00:00Z", "user_rating": 9, "status": "completed",
                "movie": {"title": "Harbour", "year": 1999, "ids": {"simkl": 501}},
            }
        ],
    }  # fmt: skip
    assert read_all(dumped(tmp_path / "mika" / "SimklBackup.json", value)).rows == [
        Row("mika", "502", 1420167845, 8.0, "series", "on_hold", 0.25, title="Lights (2001)"),
        Row("mika", "101", 1388534400, None, "anime", "planned", 0.0, title="Umi (2014)"),
        Row("mika", "501", 1420243200, 9.0, "film", "completed", title="Harbour (1999)"),
    ]


def test_steam_games(tmp_path):
    """Playtime is no share; a game that was never played is planned."""
    games = [
        {"appid": 10, "name": "Mine", "playtime_forever": 620, "rtime_last_played": 1420167845},
        {"appid": 20, "name": "Rail", "playtime_forever": 0, "rtime_last_played": 0},
    ]
    read = read_all(dumped(tmp_path / "mika.json", {"response": {"game_count": 2, "games": games}}))
    assert read.rows == [
        Row("mika", "20", 1420167845, None, "game", "planned", title="Rail"),
        Row("mika", "10", 1420167845, None, "game", title="Mine"),
    ]
    assert "completion" not in read.source.columns


def test_every_site_has_a_test_here():
    """A new one needs a fixture."""
    names = [name for name in globals() if name.startswith("test_")]
    assert [site for site in SITES if not any(site in name for name in names)] == []
