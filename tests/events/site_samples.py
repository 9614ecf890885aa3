"""One small invented list in each form that a site hands out, for tests that hold for all of them."""

import io
import json
import zipfile
from typing import Any


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _zip(**members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.csv", text)
    return out.getvalue()


_DIARY = (
    "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Tags,Watched Date\n2015-01-05,Fog,2003,https://x,3,,,2015-01-02\n"
)
_FILM = {"title": "Fog", "year": 2003, "ids": {"trakt": 7, "simkl": 8}}
_NAMES = {"master_metadata_track_name": "Hill", "master_metadata_album_artist_name": "The Ants"}

SAMPLES: dict[str, bytes] = {
    "myanimelist.xml": b"""<?xml version="1.0" encoding="UTF-8" ?>
<myanimelist><myinfo><user_name>mika</user_name></myinfo>
<anime><series_animedb_id>101</series_animedb_id><series_title><![CDATA[Sea & Sky]]></series_title>
<series_episodes>24</series_episodes><my_watched_episodes>12</my_watched_episodes>
<my_start_date>2015-01-02</my_start_date><my_finish_date>0000-00-00</my_finish_date>
<my_score>9</my_score><my_status>Watching</my_status></anime>
<manga><manga_mangadb_id>5</manga_mangadb_id><my_finish_date>2015-01-02</my_finish_date></manga></myanimelist>""",
    "anilist.json": _json(
        {
            "data": {
                "MediaListCollection": {
                    "user": {"name": "mika"},
                    "lists": [
                        {
                            "status": "CURRENT",
                            "entries": [
                                {
                                    "mediaId": 101,
                                    "score": 70,
                                    "progress": 6,
                                    "completedAt": {"year": None, "month": None, "day": None},
                                    "startedAt": {"year": 2015, "month": 1, "day": 2},
                                    "updatedAt": 1420167845,
                                    "media": {"type": "ANIME", "episodes": 24, "title": {"romaji": "Umi"}},
                                }
                            ],
                        }
                    ],
                }
            }
        }
    ),
    "anilist_export.json": _json(
        {
            "user": {"display_name": "mika"},
            "lists": [
                {
                    "series_type": 0,
                    "series_id": 101,
                    "status": 2,
                    "score": 70,
                    "started_on": 0,
                    "finished_on": 20150102,
                    "updated_at": "2015-01-02 03:04:05",
                }
            ],
        }
    ),
    "kitsu.json": _json(
        {
            "data": [
                {
                    "type": "libraryEntries",
                    "attributes": {"status": "current", "progress": 6, "ratingTwenty": 9, "progressedAt": "2015-01-02"},
                    "relationships": {"anime": {"data": {"type": "anime", "id": "101"}}},
                }
            ],
            "included": [{"type": "anime", "id": "101", "attributes": {"canonicalTitle": "Umi", "episodeCount": 24}}],
        }
    ),
    "letterboxd.csv": _DIARY.encode(),
    "letterboxd.zip": _zip(profile="Username\nmika\n", diary=_DIARY, watchlist=_DIARY.replace("Fog", "Umi")),
    "goodreads.csv": b"Book Id,Title,My Rating,Date Read,Date Added,Exclusive Shelf\n7,Tides,4,2015/01/02,,read\n",
    "imdb.csv": b"Const,Your Rating,Date Rated,Title,Title Type,Year\ntt1,8,2015-01-02,Fog,Movie,2003\n",
    "trakt.csv": b"watched_at,type,title,year,trakt_id\n2015-01-02T03:04:05.000Z,movie,Fog,2003,7\n",
    "trakt.json": _json([{"watched_at": "2015-01-02T03:04:05.000Z", "type": "movie", "movie": _FILM}]),
    "trakt_shows.json": _json(
        [
            {
                "last_watched_at": "2015-01-02",
                "show": _FILM,
                "seasons": [{"number": 1, "episodes": [{"number": 1, "last_watched_at": "2015-01-02"}]}],
            }
        ]
    ),
    "simkl.json": _json({"movies": [{"status": "completed", "last_watched_at": "2015-01-02", "movie": _FILM}]}),
    "spotify.json": _json([{"endTime": "2015-01-02 03:04", "artistName": "A", "trackName": "B", "msPlayed": 5}]),
    "spotify_extended.json": _json([_NAMES | {"ts": "2015-01-02T03:04:05Z", "username": "mika", "ms_played": 5}]),
    "lastfm.csv": b"The Ants,Nest,Hill,02 Jan 2015 03:04\n",
    "lastfm_header.csv": b"uts,utc_time,artist,album,track\n1420167840,x,The Ants,Nest,Hill\n",
    "netflix.csv": b'Title,Date\n"Lights: Season 1: Third","1/25/15"\n',
    "netflix_activity.csv": b"Profile Name,Start Time,Title,Supplemental Video Type\nMika,2015-01-02 03:04:05,Fog,\n",
    "steam.json": _json(
        {"response": {"games": [{"appid": 7, "name": "Mine", "playtime_forever": 5, "rtime_last_played": 1420167845}]}}
    ),
}
