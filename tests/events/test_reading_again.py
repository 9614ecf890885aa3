"""A history is read as the dataset was read: with its columns, units and words, also where a slice alone says less."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_user_histories import built_events, events_of

from streamfeat.builder.coordinator import build_shards
from streamfeat.config import BuildConfig
from streamfeat.events.user_histories import UserHistories, read_histories
from streamfeat.store.manifest import load_manifest

Row = dict[str, Any]
START = 1_500_000_000
DAYS = ["01/01/2020", "02/02/2020", "31/01/2020", "03/04/2020"]
# Name → (kind of file, options of the build, the columns of row i of user u).
INPUTS: dict[str, tuple[str, dict[str, Any], Callable[[int, int], Row]]] = {
    "milliseconds": ("csv", {}, lambda u, i: {"timestamp": (START + 9 - i) * 1000 + 150 * u}),
    "days and months": ("csv", {}, lambda u, i: {"timestamp": DAYS[(u + i) % 3 if u else (0, 1, 3)[i % 3]]}),
    "days of a spreadsheet": ("csv", {"time_unit": "excel-days"}, lambda u, i: {"timestamp": 43_831 + i}),
    "an order alone": ("csv", {"time_unit": "s"}, lambda u, i: {"timestamp": 40 - i}),
    "date and time": (
        "csv",
        {"columns": {"timestamp": "date+time"}},
        lambda u, i: {"date": f"2019-07-0{1 + i}", "time": f"{10 + u % 10}:00:00"},
    ),
    "named columns": (
        "csv",
        {"columns": {"item": "b", "timestamp": "ts", "rating": "how"}},
        lambda u, i: {"b": f"b{i}", "how": i % 5, "ts": START + i, "timestamp": START - i},
    ),
    "a role left out": ("csv", {"columns": {"rating": ""}}, lambda u, i: {"rating": i, "timestamp": START + i}),
    "one medium": ("csv", {"constant": {"medium": "film"}}, lambda u, i: {"timestamp": START + i}),
    "words of status": (
        "csv",
        {"status": {"later": "planned"}},
        lambda u, i: {"timestamp": START + i, "status": "later" if (u + i) % 3 == 0 else "completed"},
    ),
    "numbers of status": (
        "csv",
        {},
        lambda u, i: {"timestamp": START + i, "status": (u + i) % 2 if u < 9 else (u + i) % 5},
    ),
    "a flag": ("csv", {}, lambda u, i: {"timestamp": START + i, "status": (u + i) % 2 if u else 1}),
    "percent": ("csv", {}, lambda u, i: {"timestamp": START + i, "percent_watched": (i % 2) if u < 9 else 20 * i}),
    "episodes of a total": (
        "csv",
        {},
        lambda u, i: {"timestamp": START + i, "progress": (i % 2) if u < 9 else i, "episodes": 4},
    ),
    "episodes without a total": ("csv", {}, lambda u, i: {"timestamp": START + i, "progress": (i % 2) if u < 9 else i}),
    "a rating that means none": (
        "csv",
        {"unrated": "0"},
        lambda u, i: {"timestamp": START + i, "rating": (u + i) % 5},
    ),
    "whole numbers that are dates": ("parquet", {}, lambda u, i: {"date": 20_200_101 + i}),
    "JSON": ("json", {}, lambda u, i: {"time": f"2020-01-0{1 + i}T00:00:00.{u}Z", "score": i}),
    "MovieLens": ("tab", {}, lambda u, i: {"rating": 1 + (u + i) % 5, "timestamp": 880_000_000 + i}),
    "columns by place": (
        "unnamed",
        {"columns": {"user": "#1", "item": "#2", "timestamp": "#3"}},
        lambda u, i: {"timestamp": START + i},
    ),
}


def rows_of(name: str) -> list[Row]:
    make = INPUTS[name][2]
    numbered = INPUTS[name][0] == "tab"
    return [
        {"user": u + 1 if numbered else f"u{u}", "item": i + 1 if numbered else f"i{i}", **make(u, i)}
        for i in range(5)
        for u in range(40)
    ]


def write(folder: Path, kind: str, rows: list[Row]) -> str:
    path = folder / f"events.{kind}"
    lines = {"csv": ",", "tab": "\t", "unnamed": ","}
    if kind in lines:
        header = [lines[kind].join(rows[0])] if kind == "csv" else []
        path.write_text("\n".join([*header, *(lines[kind].join(map(str, row.values())) for row in rows)]) + "\n")
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def asked(path: str, dataset: Path, **options: Any) -> UserHistories:
    manifest = load_manifest(dataset)
    media = manifest.data_schema.media
    medium = media[0] if len(media) == 1 else None
    return read_histories(path, BuildConfig(**options), medium=medium, readings=manifest.readings)


@pytest.mark.parametrize("name", INPUTS)
def test_a_slice_of_the_event_file_is_the_history_of_the_dataset(tmp_path: Path, name: str) -> None:
    """Without any option, also where the slice alone would be read otherwise or refused."""
    kind, options, _ = INPUTS[name]
    rows = rows_of(name)
    build_shards([write(tmp_path, kind, rows)], tmp_path / "data", window_len=8, **options)
    built = built_events(tmp_path / "data")
    for user in (rows[0]["user"], rows[7]["user"]):
        folder = tmp_path / str(user)
        folder.mkdir()
        found = asked(write(folder, kind, [row for row in rows if row["user"] == user]), tmp_path / "data")
        assert events_of(found) == {str(user): built[str(user)]}
        assert not found.rejected
        assert found.read_otherwise == []


def test_what_is_read_otherwise_is_said(tmp_path: Path) -> None:
    """Another column for a role, another unit; what the user gives is no such thing."""
    rows = [{"user": "u", "movie_id": f"m{i}", "time_ms": (START + i) * 1000} for i in range(9)]
    build_shards([write(tmp_path, "csv", rows)], tmp_path / "data", window_len=8)
    path = tmp_path / "h.csv"
    path.write_text(f"user,item,time_ms\nme,m1,{START}\n")
    told = asked(str(path), tmp_path / "data").read_otherwise
    assert told == [
        "item is read from 'item', but for the dataset it was read from 'movie_id'",
        "times are read as s, but for the dataset they were read as ms",
    ]
    assert asked(str(path), tmp_path / "data", columns={"item": "item"}, time_unit="s").read_otherwise == []
    path.write_text("who,what,when\nme,m1,2017-07-14\n")
    names = {"user": "who", "item": "what", "timestamp": "when"}
    assert asked(str(path), tmp_path / "data", columns=names).read_otherwise == []


def test_a_list_is_read_with_the_words_and_constants_of_the_datasets_lists(tmp_path: Path) -> None:
    """A shelf of one's own on Goodreads; the user of a history is its own."""
    header = "Book Id,Title,My Rating,Date Read,Date Added,Exclusive Shelf\n"
    for user in range(12):
        rows = [f"{b},T{b},4,2015/01/{1 + b:02d},,{'gave-up' if (b + user) % 3 else 'read'}" for b in range(5)]
        (tmp_path / f"user{user}.csv").write_text(header + "\n".join(rows) + "\n", "utf-8")
    options = {"status": {"gave-up": "dropped"}, "constant": {"medium": "novel"}}
    build_shards([str(tmp_path / "user*.csv")], tmp_path / "data", window_len=8, **options)
    built = built_events(tmp_path / "data")
    found = asked(str(tmp_path / "user3.csv"), tmp_path / "data")
    assert events_of(found) == {"user3": built["user3"]}
    assert not found.rejected
    path = tmp_path / "rows.csv"  # with names that the table of a list has, too
    path.write_text(f"user,item_id,title,timestamp\nme,1,T1,{START}\n")
    assert asked(str(path), tmp_path / "data").read_otherwise == []
