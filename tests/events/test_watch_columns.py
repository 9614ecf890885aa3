"""What a status column and a column of progress mean is recognised from their values, said, and can be given."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_all import Read, read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.formats import recognise
from streamfeat.events.statuses import NUMBERS, WORDS, recognise_statuses, status_of
from streamfeat.schema import STATUSES


def table(folder: Path, kind: str = "csv", **columns: list[Any]) -> Path:
    """A file of events with these columns beside user, item and timestamp."""
    num = len(next(iter(columns.values())))
    base = {"user": [f"u{i % 2}" for i in range(num)], "item": [f"i{i}" for i in range(num)]}
    values = base | {"timestamp": [1_500_000_000 + i for i in range(num)]} | columns
    path = folder / f"events.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(values), path)
    else:
        rows = [
            ",".join("" if value is None else str(value) for value in row) for row in zip(*values.values(), strict=True)
        ]
        path.write_text("\n".join([",".join(values), *rows]) + "\n", "utf-8")
    return path


def read_rows(path: Path, **config: Any) -> Read:
    read = read_all(path, **config)
    assert read.rejected == []
    return read


WORDS_OF_SITES = {
    "MyAnimeList": {
        "Watching": "watching", "Reading": "watching", "Completed": "completed", "On-Hold": "on_hold",
        "Dropped": "dropped", "Plan to Watch": "planned", "Plan to Read": "planned", "plan_to_watch": "planned",
    },
    "AniList": {
        "CURRENT": "watching", "PLANNING": "planned", "COMPLETED": "completed", "DROPPED": "dropped",
        "PAUSED": "on_hold", "REPEATING": "watching",
    },
    "Kitsu": {
        "current": "watching", "planned": "planned", "completed": "completed", "on_hold": "on_hold",
        "dropped": "dropped",
    },
    "Goodreads": {"read": "completed", "currently-reading": "watching", "to-read": "planned"},
    "Trakt": {"watched": "completed", "watchlist": "planned"},
    "Simkl": {
        "watching": "watching", "plantowatch": "planned", "hold": "on_hold", "completed": "completed",
        "notinteresting": "dropped", "dropped": "dropped",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("site", WORDS_OF_SITES)
def test_every_sites_words_are_known(tmp_path, site, kind):
    """In any case, with spaces, hyphens or underscores."""
    words = WORDS_OF_SITES[site]
    read = read_rows(table(tmp_path, kind, status=[*words, *map(str.upper, words)]))
    assert [row.status for row in read.rows] == [*words.values()] * 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_are_statuses_beyond_0_and_1(tmp_path, kind):
    """0 to 4 in the order of the statuses; MyAnimeList's 1 to 4 are the same and its 6 is planned."""
    read = read_rows(table(tmp_path, kind, status=[0, 1, 2, 3, 4]))
    assert [row.status for row in read.rows] == list(STATUSES)
    read = read_rows(table(tmp_path, kind, watching_status=[1, 2, 3, 4, 6]))
    assert [row.status for row in read.rows] == ["watching", "completed", "on_hold", "dropped", "planned"]
    read = read_rows(table(tmp_path, kind, status=["2.0", None, "4.0"]))
    assert [row.status for row in read.rows] == ["completed", "completed", "dropped"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_flag_of_0_and_1_is_no_status(tmp_path, kind):
    """A log of orders or likes: read as statuses, half of the events would be planned."""
    path = table(tmp_path, kind, status=[0, 1, 1, 0])
    read = read_rows(path)
    assert "status" not in read.source.columns
    assert "status left out: it holds only 0 and 1" in read.source.note
    read = read_rows(path, status="0=dropped,1=completed")
    assert [row.status for row in read.rows] == ["dropped", "completed", "completed", "dropped"]
    with pytest.raises(ConfigError, match=r"holds only 0 and 1.*--status 0=…,1=…"):
        recognise(str(path), BuildConfig(columns={"status": "status"}))


def test_the_word_of_a_list_of_myanimelist_may_be_1_alone(tmp_path):
    """All that one user watches now."""
    read = read_rows(table(tmp_path, watching_status=[1, 1]))
    assert [row.status for row in read.rows] == ["watching", "watching"]


def test_given_words_come_first(tmp_path):
    """Also before known ones, and with the numbers."""
    path = table(tmp_path, status=["shipped", "done", "2", "5"])
    read = read_rows(path, status={"shipped": "completed", "done": "dropped", "5": "on_hold"})
    assert [row.status for row in read.rows] == ["completed", "dropped", "completed", "on_hold"]
    with pytest.raises(ValueError, match="did you mean completed"):
        BuildConfig(status="shipped=complete")
    with pytest.raises(ValueError, match="is not WORD=status"):
        BuildConfig(status="shipped")


@settings(deadline=None)
@given(st.lists(st.sampled_from([*NUMBERS, "1.0", "2.0", ""]), min_size=1))
def test_a_column_of_numbers_is_read_whole_or_left_out_whole(values):
    """No sampled number is unknown where the column has a role."""
    found = recognise_statuses("status", values, {})
    numbers = {value.removesuffix(".0") for value in values} - {""}
    assert (found is None) == (bool(numbers) and numbers <= {"0", "1"})
    if found is not None:
        assert all(status_of(value, found) == NUMBERS[value.removesuffix(".0")] for value in values if value)


def test_a_dash_is_a_missing_status_and_null_is_no_medium(tmp_path):
    """An apostrophe before the dash, as in the list of rejected rows, would be part of the advice."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,time,status,medium\nu,i,1500000000,-,anime\nu,j,1500000001,dropped,NULL\n")
    read = read_all(path)
    assert [(row.status, row.medium) for row in read.rows] == [("completed", "anime")]
    assert read.reasons == [(3, "empty_medium")]


def test_no_word_means_two_statuses():
    """Otherwise the order of the table would decide."""
    words = [word for group in WORDS.values() for word in group]
    assert len(words) == len(set(words))
    assert tuple(WORDS) == STATUSES


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_progress_is_a_completion_where_the_total_is_there(tmp_path, kind):
    """More than all episodes is all; a total that is 0 or missing is unknown, and then the completion is."""
    path = table(tmp_path, kind, progress=[3, 24, 5, 7, 30], total_episodes=[12, 24, 0, None, 30])
    read = read_rows(path)
    assert [row.completion for row in read.rows] == [0.25, 1.0, 1.0, 1.0, 1.0]
    assert "completion is progress of total_episodes" in read.source.note
    read = read_rows(table(tmp_path, kind, my_watched_episodes=[3, 24], series_episodes=[12, 24]))
    assert [row.completion for row in read.rows] == [0.25, 1.0]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_progress_without_a_total_is_left_out_and_said(tmp_path, kind):
    """Episodes are no share: 12 of 24 is not 1."""
    path = table(tmp_path, kind, progress=[0, 1, 12, 24], length=[24, 24, 24, 24])
    read = read_rows(path)
    assert [row.completion for row in read.rows] == [1.0] * 4
    assert "progress left out: it counts something, without a total" in read.source.note
    read = read_rows(path, columns={"total": "length"})
    assert [row.completion for row in read.rows] == [0.0, 0.041667, 0.5, 1.0]
    with pytest.raises(ConfigError, match=r"--columns completion=progress.*--columns total=NAME"):
        recognise(str(path), BuildConfig(columns={"completion": "progress"}))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_percent_is_a_completion(tmp_path, kind):
    """By its sign, or by the column's name."""
    read = read_rows(table(tmp_path, kind, progress=["5%", "50 %", "100%", None]))
    assert [row.completion for row in read.rows] == [0.05, 0.5, 1.0, 1.0]
    read = read_rows(table(tmp_path, kind, watched_percent=[5, 50, 100]))
    assert [row.completion for row in read.rows] == [0.05, 0.5, 1.0]


def test_a_share_stays_a_share(tmp_path):
    """And a stray value above 1 a bad row."""
    read = read_all(table(tmp_path, completion=[0.5] * 199 + [7], total=[10] * 200))
    assert [row.completion for row in read.rows] == [0.5] * 199
    assert read.reasons == [(201, "bad_completion")]


def test_a_total_of_every_row_can_be_said(tmp_path):
    """Progress of 0 to 100 without a percent sign; the note names the option."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,time,progress\n" + "".join(f"u,i{i},{1_500_000_000 + i},{i}\n" for i in range(101)))
    assert "--constant total=100" in recognise(str(path), BuildConfig()).note
    read = read_all(path, constant="total=100")
    assert "completion is progress of 100" in read.source.note
    assert [row.completion for row in read.rows] == pytest.approx([i / 100 for i in range(101)])
    path.write_text(path.read_text() + "u,i,1500000999,NaN\nu,j,1500001000,x\n")
    read = read_all(path, constant="total=100")
    assert [row.completion for row in read.rows[-1:]] == [1]
    assert read.reasons == [(104, "bad_completion")]
    for total in ("0", "all", "-1"):
        with pytest.raises(ConfigError, match="no number above 0"):
            recognise(str(path), BuildConfig(constant=f"total={total}"))
