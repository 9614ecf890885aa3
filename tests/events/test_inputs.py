"""Every file of ../shared/data/inputs, in the formats of real exports, is read rightly or refused with a remedy.

The expected numbers were counted with Python's own csv, json and datetime, not with the code under test.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from streamfeat.builder.coordinator import build_steps
from streamfeat.config import BuildConfig
from streamfeat.errors import StreamfeatError
from streamfeat.events.event_paths import expand
from streamfeat.events.user_histories import UserHistories, read_several
from streamfeat.progress import Note
from streamfeat.schema import PLANNED

INPUTS = Path(__file__).parents[3] / "shared/data/inputs"
pytestmark = pytest.mark.skipif(not INPUTS.is_dir(), reason="the input files are not here (../shared/data/inputs)")


class Right(NamedTuple):
    """What a file holds."""

    users: int
    items: int
    events: int  # without duplicates
    first: str  # time of the first event, UTC
    last: str
    ratings: int
    rating_sum: float


RIGHT = {
    "amazon2014_pandas.csv": Right(9, 30, 120, "2017-07-14T00:00:00", "2017-07-20T00:00:00", 120, 360.0),
    "amazon2014_reviews.json": Right(9, 30, 120, "2017-07-14T00:00:00", "2017-07-20T00:00:00", 120, 360.0),
    "amazon2023_0core.csv": Right(9, 30, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 120, 360.0),
    "anilist.csv": Right(4, 40, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 80, 4400.0),
    "date_and_time.csv": Right(8, 30, 100, "2019-07-01T12:00:00", "2019-07-28T12:55:00", 0, 0),
    "decimal_comma.csv": Right(8, 30, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 100, 350.0),
    "display_name_and_id.csv": Right(8, 30, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 100, 300.0),
    "excel_sep.csv": Right(8, 30, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 100, 300.0),
    "goodreads.csv": Right(1, 80, 80, "2017-07-14T00:00:00", "2017-10-01T00:00:00", 56, 163.0),
    "hetrec_user_ratedmovies-timestamps.dat": Right(
        8, 40, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 120, 355.5
    ),
    "imdb_ratings.csv": Right(1, 80, 80, "2017-07-14T00:00:00", "2017-10-01T00:00:00", 80, 440.0),
    "iso_ms_unsorted.csv": Right(8, 20, 160, "2017-07-14T02:40:00", "2017-07-14T04:36:42", 0, 0),
    "kitsu.csv": Right(4, 40, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 80, 856.0),
    "kuairand_log.csv": Right(8, 40, 120, "2022-04-08T00:00:00", "2022-04-13T22:49:59", 0, 0),
    "kuairand_one_user.csv": Right(1, 5, 15, "2022-04-08T03:36:03", "2022-04-13T18:01:55", 0, 0),
    "letterboxd_diary.csv": Right(1, 80, 80, "2017-07-14T00:00:00", "2017-10-01T00:00:00", 27, 75.0),
    "letterboxd_ratings.csv": Right(1, 80, 80, "2017-07-14T00:00:00", "2017-10-01T00:00:00", 80, 220.0),
    "mal_UserAnimeList.csv": Right(8, 40, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 80, 440.0),
    "ml_pandas/ratings.csv": Right(8, 30, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 100, 300.0),
    "ms_history.csv": Right(1, 2, 2, "2017-07-14T02:40:00", "2017-07-14T02:40:00", 0, 0),
    "ms_repeat.csv": Right(8, 10, 160, "2017-07-14T02:40:00", "2017-07-14T04:36:47", 0, 0),
    "ms_unsorted.csv": Right(8, 20, 160, "2017-07-14T02:40:00", "2017-07-14T04:36:42", 0, 0),
    "order_status01.csv": Right(8, 30, 200, "2020-01-01T10:00:00", "2020-01-28T10:55:00", 0, 0),
    "pq_bool_completion.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 0, 0),
    "pq_bool_rating.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 50.0),
    "pq_date32.parquet": Right(8, 40, 100, "2020-01-01T00:00:00", "2020-04-09T00:00:00", 100, 300.0),
    "pq_decimal_rating.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 248.0),
    "pq_dict.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "pq_float_ids.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "pq_float_time.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "pq_index.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "pq_int.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "pq_int8_cat.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "pq_time_str_unix.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "pq_ts_ns_tz.parquet": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-19T01:29:39", 100, 300.0),
    "recbole_float_time.inter": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-15T06:10:00", 100, 400.0),
    "rees46_2019-Oct.csv": Right(8, 40, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 0, 0),
    "retailrocket_events.csv": Right(8, 40, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 0, 0),
    "spark/csv": Right(8, 40, 120, "2017-07-14T02:40:00", "2017-08-08T05:01:59", 0, 0),
    "spark/hdr": Right(8, 40, 80, "2017-07-14T02:40:00", "2017-08-08T05:01:59", 0, 0),
    "spark/pq": Right(8, 40, 120, "2017-07-14T02:40:00", "2017-08-08T05:01:59", 80, 320.0),
    "spotify_StreamingHistory0.json": Right(1, 120, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:00", 0, 0),
    "spotify_as_csv.csv": Right(1, 120, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:00", 0, 0),
    "t_binary_rating.csv": Right(20, 41, 400, "2017-07-14T02:40:00", "2017-07-18T17:23:21", 400, 200.0),
    "t_neg_rating.csv": Right(20, 41, 400, "2017-07-14T02:40:00", "2017-07-18T17:23:21", 400, 1329.0),
    "t_no_rating.csv": Right(20, 41, 400, "2017-07-14T02:40:00", "2017-07-18T17:23:21", 0, 0),
    "t_odd_ids.csv": Right(19, 16, 400, "2017-07-14T02:40:00", "2017-07-18T17:23:21", 400, 1200.0),
    "t_one_item.csv": Right(30, 1, 300, "2017-07-14T02:40:00", "2017-07-17T13:43:20", 300, 900.0),
    "t_one_user.csv": Right(1, 40, 300, "2017-07-14T02:40:00", "2017-07-17T13:43:20", 300, 900.0),
    "t_planned_medium.csv": Right(20, 82, 400, "2017-07-14T02:40:00", "2017-07-18T17:30:00", 400, 1200.0),
    "t_same_rating.csv": Right(20, 41, 400, "2017-07-14T02:40:00", "2017-07-18T17:23:21", 400, 1200.0),
    "t_same_time.csv": Right(20, 41, 400, "2017-07-14T02:40:00", "2017-07-14T02:40:00", 400, 1200.0),
    "t_two_users.csv": Right(2, 40, 300, "2017-07-14T02:40:00", "2017-07-17T13:43:20", 300, 900.0),
    "t_zero_rating.csv": Right(20, 41, 400, "2017-07-14T02:40:00", "2017-07-18T17:23:21", 400, 0.0),
    "trakt_history.csv": Right(1, 40, 120, "2017-07-14T03:52:01", "2017-07-20T02:42:00", 0, 0),
    "two_times.csv": Right(8, 30, 100, "2020-03-01T12:00:00", "2020-03-28T12:55:00", 0, 0),
    "yelp_review.json": Right(9, 30, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 120, 360.0),
}

# These may be refused, too: nothing in them, or too little, settles how they are meant.
RIGHT_OR_REFUSED = {
    "amazon2018_ratings_only.csv": Right(9, 30, 120, "2017-07-14T00:00:00", "2017-07-20T00:00:00", 120, 360.0),
    "dmy_dates.csv": Right(8, 30, 100, "2020-01-01T00:00:00", "2020-12-28T00:00:00", 0, 0),
    "gowalla_totalCheckins.txt": Right(8, 40, 120, "2017-07-14T03:52:01", "2017-07-20T02:42:00", 0, 0),
    "hm_transactions.csv": Right(8, 40, 120, "2017-07-14T00:00:00", "2017-08-12T00:00:00", 0, 0),
    "item_user_rating_time.tsv": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 100, 300.0),
    "lastfm_export.csv": Right(1, 120, 120, "2017-07-14T03:52:00", "2017-07-20T02:42:00", 0, 0),
    "lfm2b_headerless.tsv": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 0, 0),
    "pq_excel_days.parquet": Right(8, 40, 100, "2020-01-01T12:00:00", "2020-04-09T12:00:00", 100, 300.0),
    "pq_int32_yyyymmdd.parquet": Right(8, 40, 100, "2020-01-01T00:00:00", "2020-04-09T00:00:00", 100, 300.0),
    "pq_null_user.parquet": Right(8, 38, 95, "2017-07-14T03:52:01", "2017-07-19T01:29:39", 95, 295.0),
    "recbole_seq.inter": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 0, 0),
    "t_gaps.csv": Right(20, 41, 400, "1970-01-01T00:00:05", "9987-04-02T17:53:19", 400, 1200.0),
    "tab_user_item_time_rating.tsv": Right(8, 40, 120, "2017-07-14T02:40:00", "2017-07-20T01:29:59", 120, 360.0),
    "tmall_user_item_count_time.tsv": Right(8, 40, 100, "2017-07-14T02:40:00", "2017-07-15T06:08:21", 0, 0),
}

# File → what the refusal must name.
REFUSED = {
    "hetrec_user_ratedmovies.dat": "timestamp",
    "kaggle_anime_rating.csv": "timestamp",
    "kaggle_animelist2020.csv": "timestamp",
    "lastfm_scraper_mixed.csv": "timestamp",
    "netflix_combined_data_1.txt": "awk",
    "pq_float_big_ids.parquet": "digits",
    "pq_list.parquet": "list",
    "sasrec_ml-1m.txt": "timestamp|columns",
    "t_huge_rating.csv": "rating",
    "t_huge_rating2.csv": "rating",
}

# 0 or -1 stands for "no rating" in these files of no known site: the option makes it missing.
UNRATED = {"t_zero_rating.csv": "0", "t_neg_rating.csv": "-1"}


def read(name: str, **options: object) -> UserHistories:
    return read_several(expand([str(INPUTS / name)]), BuildConfig.model_validate(options), medium="item")


def counted(found: UserHistories) -> Right:
    def text(time: int) -> str:
        return str(np.datetime64(int(time), "s"))

    rated = found.rating[~np.isnan(found.rating)].astype(np.float64)
    return Right(
        len(found.users),
        len(found.items),
        len(found.time),
        text(found.time.min()),
        text(found.time.max()),
        len(rated),
        round(float(rated.sum()), 3),
    )


@pytest.mark.parametrize("name", RIGHT)
def test_a_file_is_read_rightly(name: str) -> None:
    assert counted(read(name)) == RIGHT[name]


@pytest.mark.parametrize("name", RIGHT_OR_REFUSED)
def test_an_unclear_file_is_read_rightly_or_refused(name: str) -> None:
    try:
        found = read(name)
    except StreamfeatError:
        return
    assert counted(found) == RIGHT_OR_REFUSED[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_right_is_refused_with_what_it_lacks(name: str) -> None:
    with pytest.raises(StreamfeatError, match=f"(?s){name}.*({REFUSED[name]})"):
        read(name)


@pytest.mark.parametrize("name", ["ms_unsorted.csv", "iso_ms_unsorted.csv"])
def test_events_of_one_second_stand_in_true_order(name: str) -> None:
    found = read(name)
    for first, stop in zip(found.offsets[:-1], found.offsets[1:], strict=True):
        assert [found.items[i][1] for i in found.item[first:stop]] == [f"i{i}" for i in range(20)]


def test_a_history_of_milliseconds_stands_in_true_order() -> None:
    found = read("ms_history.csv")
    assert [found.items[i][1] for i in found.item] == ["i0", "i1"]


@pytest.mark.parametrize("name", ["display_name_and_id.csv", "two_times.csv", "kuairand_log.csv"])
def test_a_choice_between_two_columns_is_said(name: str) -> None:
    left = {
        "display_name_and_id.csv": ("user", "movie"),
        "two_times.csv": ("created_at",),
        "kuairand_log.csv": ("date",),
    }
    said = read(name).recognised
    assert all(column in said for column in left[name]), said


def test_the_same_ids_as_numbers_floats_and_text_are_one_dataset() -> None:
    files = [str(INPUTS / f"pq_{kind}.parquet") for kind in ("int", "float_ids", "int8_cat")]
    found = read_several(expand(files), BuildConfig(), medium="item")
    assert (len(found.users), len(found.items)) == (8, 40)


def test_a_status_of_zeros_and_ones_makes_no_planned_events() -> None:
    assert (read("order_status01.csv").status != PLANNED).all()


@pytest.mark.parametrize(
    ("name", "planned"), [("anilist.csv", 17), ("kitsu.csv", 24), ("mal_UserAnimeList.csv", 20), ("goodreads.csv", 5)]
)
def test_the_status_words_of_the_sites_are_known(name: str, planned: int) -> None:
    assert int((read(name).status == PLANNED).sum()) == planned


def test_progress_in_episodes_is_no_share() -> None:
    for name in ("anilist.csv", "kitsu.csv", "mal_UserAnimeList.csv"):
        completion = read(name).completion
        assert ((completion >= 0) & (completion <= 1)).all()


def test_a_rating_of_an_unusual_name_is_named_and_can_be_given() -> None:
    assert "'Rating, of 10' holds numbers" in read("column_with_comma.csv").recognised
    assert read("column_with_comma.csv", columns="rating=Rating, of 10").rating.tolist() == [7, 8]


@pytest.mark.parametrize("name", UNRATED)
def test_a_level_apart_is_told_and_an_option_makes_it_missing(tmp_path: Path, name: str) -> None:
    level = UNRATED[name]
    steps = build_steps([str(INPUTS / name)], tmp_path / "data", BuildConfig(), workers=1)
    assert any(isinstance(step, Note) and f"--unrated {level}" in step.text for step in steps)
    found = read(name, unrated=level)
    assert not (found.rating == float(level)).any()
    assert np.isnan(found.rating).any()
