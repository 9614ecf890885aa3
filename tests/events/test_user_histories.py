"""Histories read directly from an event file equal those of a build."""

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from streamfeat.builder.coordinator import build_shards
from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError, StorageError
from streamfeat.events.item_lists import read_item_list
from streamfeat.events.user_histories import UserHistories, read_histories
from streamfeat.store.histories import HistoryReader
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items, read_user_ids


def events_of(found: UserHistories) -> dict[str, list[tuple[Any, ...]]]:
    """Raw user → (medium, item, time, rating, status, completion) of its events."""
    columns = (found.time, np.nan_to_num(found.rating, nan=-1), found.status, found.completion)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    return {
        user: [(*found.items[found.item[e]], *rows[e]) for e in range(*found.offsets[u : u + 2])]
        for u, user in enumerate(found.users)
    }


def built_events(dataset: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The same of a dataset."""
    manifest, items = load_manifest(dataset), read_items(dataset)
    with HistoryReader(dataset, manifest) as reader:
        stored = reader.read(0, manifest.num_users)
    time = stored.time + manifest.data_schema.time_origin
    rating = np.nan_to_num(stored.rating, nan=-1)
    found = {}
    for u, user in enumerate(read_user_ids(dataset)):
        found[user] = [
            (items.medium[i], items.raw_id[i], *rest)
            for i, *rest in zip(*(c[stored.offsets[u] : stored.offsets[u + 1]].tolist()
                                  for c in (stored.item, time, rating, stored.status, stored.completion)), strict=True)
        ]  # fmt: skip
    return found


@pytest.mark.parametrize("keep_planned", [True, False])
def test_a_file_read_alone_gives_the_histories_of_its_build(
    tmp_path: Path, tiny_dataset: Path, keep_planned: bool
) -> None:
    """Sorted, ties in input order, the last of duplicates kept; with planned events and without."""
    path = load_manifest(tiny_dataset).sources[0].path
    config = BuildConfig(keep_planned=keep_planned)
    found = read_histories(path, config, medium=None)
    dataset = tiny_dataset
    if not keep_planned:
        dataset = tmp_path / "data"
        build_shards([path], dataset, window_len=32, keep_planned=False)
    built = built_events(dataset)
    assert {user: events for user, events in events_of(found).items() if events} == built
    assert found.duplicates == load_manifest(dataset).cleaning["duplicates"] > 0
    assert found.num_rows == load_manifest(dataset).cleaning["rows"]


def test_the_form_of_the_file_decides_nothing(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSV, gzip, Parquet, and CSV on standard input give the same."""
    path = Path(load_manifest(tiny_dataset).sources[0].path)
    plain = read_histories(path, BuildConfig(), medium=None)
    zipped = tmp_path / "events.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    parquet = tmp_path / "events.parquet"
    pq.write_table(pa.csv.read_csv(path), parquet)

    class Input:
        buffer = io.BytesIO(path.read_bytes())

    monkeypatch.setattr("sys.stdin", Input)
    for form in (zipped, parquet, "-"):
        found = read_histories(form, BuildConfig(), medium=None)
        assert events_of(found) == events_of(plain)
        assert found.users == plain.users


def test_rejected_rows_are_listed_and_raw_ids_stay_as_they_are(tmp_path: Path) -> None:
    """Leading zeros, unicode and 64 bits; times are floored."""
    path = tmp_path / "h.csv"
    path.write_text(
        "user,item,timestamp\n007,ü1,1400000000.9\n7,007,1400000001\n,x,1400000002\n7,18446744073709551615,no\n"
    )
    found = read_histories(path, BuildConfig(), medium="film")
    assert events_of(found) == {
        "007": [("film", "ü1", 1400000000, -1, 2, 1)],
        "7": [("film", "007", 1400000001, -1, 2, 1)],
    }
    assert [(r.row, r.reason) for r in found.rejected] == [(4, "missing_user"), (5, "unparsable_time")]
    assert found.num_rows == 4


def test_a_file_that_gives_no_history_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file, no medium although there are several, no event; the message names standard input as such."""
    path = tmp_path / "h.csv"
    path.write_text("user,item,timestamp\n1,2,1400000000\n")
    with pytest.raises(ConfigError, match="no column for medium; found user, item, timestamp"):
        read_histories(path, BuildConfig(), medium=None)
    path.write_text("user,item,timestamp\n")
    with pytest.raises(DataError, match="no row of 0 is an event"):
        read_histories(path, BuildConfig(), medium="film")
    path.write_text("user,item,timestamp\n1,,1400000000\n")
    with pytest.raises(DataError, match="no row of 1 is an event"):
        read_histories(path, BuildConfig(), medium="film")

    class Input:
        buffer = io.BytesIO(b"a,b\n1,2\n")

    monkeypatch.setattr("sys.stdin", Input)
    with pytest.raises(ConfigError, match="standard input: no column for user"):
        read_histories("-", BuildConfig(), medium="film")


def test_what_cannot_be_read_or_copied_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input that is closed or cannot be read; no place for temporary files."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed: pipe the events in, or give their file"):
        read_histories("-", BuildConfig(), medium="film")

    with Path("/proc/self/mem").open(encoding="utf-8") as unreadable:  # there is nothing at its start
        monkeypatch.setattr("sys.stdin", unreadable)
        with pytest.raises(StorageError, match=r"standard input cannot be copied .*give a file"):
            read_histories("-", BuildConfig(), medium="film")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match=r"cannot make a folder for temporary files .*TMPDIR"):
        read_histories("-", BuildConfig(), medium="film")


LISTS = {
    "ids": ("a1\n007\na1\n\n", [("", "a1"), ("", "007")]),
    "ids and media": ("a1,anime\nb,2,Manga\nx,y\n", [("anime", "a1"), ("manga", "b,2"), ("", "x,y")]),
    "table": ("title,movieId,medium\nOne,1,anime\nTwo,02,manga\n", [("anime", "1"), ("manga", "02")]),
    "no media": ("item_id\tname\n5\tFive\n", [("", "5")]),
    "recbole": ("item_id:token\tname:token\n5\tFive\n", [("", "5")]),
    "events": ("user,item,medium,timestamp\n1,9,anime,1400000000\n1,8,anime,1400000000\n",
               [("anime", "9"), ("anime", "8")]),
    "u.data": ("1\t242\t3\t881250949\n1\t302\t3\t881250949\n", [("", "242"), ("", "302")]),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_items_may_be_ids_a_table_or_events(tmp_path: Path, name: str) -> None:
    """In its order, each item once, also compressed and with other line ends."""
    text, wanted = LISTS[name]
    path = tmp_path / "items.txt"
    path.write_text(text, newline="")
    assert read_item_list(path, ("anime", "manga")) == wanted
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))
    assert read_item_list(path, ("anime", "manga")) == wanted


def test_a_list_of_items_may_be_parquet_and_is_refused_where_it_names_none(tmp_path: Path) -> None:
    """Numbers are used as ids by their digits."""
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"itemId": [3, None, 2**63 - 1], "medium": ["Anime", "manga", None]}), path)
    assert read_item_list(path, ("anime", "manga")) == [("anime", "3"), ("", "9223372036854775807")]
    ids = pa.array([None, bytes(range(16))], pa.uuid())
    pq.write_table(pa.table({"item": ids}), path)
    assert read_item_list(path, ()) == [("", "00010203-0405-0607-0809-0a0b0c0d0e0f")]
    pq.write_table(pa.table([[1], [2]], ["item", "item"]), path)
    with pytest.raises(DataError, match="the column 'item' is there twice"):
        read_item_list(path, ())
    pq.write_table(pa.table({"number": [1]}), path)
    with pytest.raises(ConfigError, match="no column for item; found number"):
        read_item_list(path, ("anime",))
    text = tmp_path / "items.csv"
    text.write_text("item,medium\n")
    with pytest.raises(DataError, match="has no item"):
        read_item_list(text, ("anime",))
    text.write_text("medium,item\nanime\n")
    with pytest.raises(DataError, match="line 2 has only 1 fields"):
        read_item_list(text, ("anime",))
    text.write_bytes(b"\xff\xfe\xfd\xfc0")
    with pytest.raises((DataError, ConfigError)):
        read_item_list(text, ("anime",))
