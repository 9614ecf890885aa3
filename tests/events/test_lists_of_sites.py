"""Each site's lists, in its own form: what becomes of every field. All entries are invented."""

from pathlib import Path

from read_all import Row, read_all

DAY = 86_400


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


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
