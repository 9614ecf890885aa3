"""Recommending: a run folder and a history are enough, and what a list says hangs on nothing that it should not."""

import math
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import train.inference.every_user
from streamfeat.builder.coordinator import build_shards
from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.progress import Note, Progress
from streamfeat.schema import PLANNED
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items, read_user_ids
from train.inference.every_user import Written, recommend_all_steps
from train.inference.queries import stored_histories
from train.inference.recommend import Recommendation, recommend_steps
from train.inference.scorer import Scorer
from train.trained_run import TrainedRun
from train.training.loop import train_steps as train_model

GIVEN: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 128, "steps": 8}
HEADER = "user,item,medium,timestamp,rating,status\n"
AT = 1_305_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> dict[str, Path]:
    """A run of a few steps for each objective, whose dataset is gone."""
    found = {}
    for objective in ("causal", "masked"):
        folder = tmp_path_factory.mktemp(objective)
        shutil.copytree(tiny_dataset, folder / "data")
        for _ in train_model(folder / "data", folder / "run", {**GIVEN, "objective": objective}):
            pass
        shutil.rmtree(folder / "data")
        found[objective] = folder / "run"
    return found


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Two users, one of them with a planned event and items that no run knows."""
    return written(
        tmp_path / "history.csv",
        "ann,a1,anime,1300000000,7,completed\nann,a3,anime,1300000100,,planned\nann,m2,manga,1300000200,9,dropped\n"
        "bob,m0,manga,1300000000,3,completed\nann,zz,anime,1300000300,5,completed\nann,zz,manga,1300000400,5,completed\n",
    )


def written(path: Path, rows: str) -> Path:
    path.write_text(HEADER + rows, "utf-8")
    return path


def lists(records: Iterator[Note | Recommendation]) -> dict[str, Recommendation]:
    return {record.user: record for record in records if isinstance(record, Recommendation)}


def notes(records: Iterator[Note | Recommendation]) -> str:
    return "\n".join(record.text for record in records if isinstance(record, Note))


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_lists_hold_what_the_model_finds_likeliest(runs: dict[str, Path], history: Path, objective: str) -> None:
    """Every medium, ranked by P(watch at t); seen items left out, a planned one not; raw ids and titles; ratings."""
    found = lists(recommend_steps(runs[objective], history, k=4, at=AT))
    assert list(found) == ["ann", "bob"]
    ann = found["ann"]
    assert (ann.events, ann.skipped, ann.unknown_items) == (3, 2, ("anime/zz", "manga/zz"))
    assert (ann.at, ann.time_source) == (AT, "given")
    scorer = Scorer.of_run(runs[objective])
    schema, items = scorer.manifest.data_schema, scorer.items
    ids = {key: number for number, key in enumerate(zip(items.medium, items.raw_id, strict=True))}
    rows = [("anime", "a1", 0, 7, 2), ("anime", "a3", 100, math.nan, PLANNED), ("manga", "m2", 200, 9, 4)]
    known = stored_history(ids, rows, schema.time_origin)
    for medium, (name, listed) in enumerate(ann.media.items()):
        assert name == schema.media[medium]
        states = scorer.states([known], [AT - schema.time_origin], medium)
        p = scorer.log_probs(states, medium, [known], [AT - schema.time_origin]).exp()[0].numpy()
        low = schema.medium_offsets[medium]
        left = {i: p[i] for i in range(len(p)) if i + low not in (ids["anime", "a1"], ids["manga", "m2"])}
        best = sorted(left, key=lambda i: -left[i])[:4]
        assert [entry.item for entry in listed] == [items.raw_id[i + low] for i in best]
        assert [entry.rank for entry in listed] == [1, 2, 3, 4]
        np.testing.assert_allclose([entry.probability for entry in listed], p[best], rtol=1e-4)
        assert all(entry.rating is not None and 0 < entry.rating < 12 for entry in listed)
    everything = lists(recommend_steps(runs[objective], history, k=100, at=AT))["ann"]
    assert len(everything.media["anime"]) == scorer.manifest.scales[0].items - 1
    assert "a3" in {entry.item for entry in everything.media["anime"]}


def stored_history(ids: dict[tuple[str, str], int], rows: list[tuple[Any, ...]], time_origin: int) -> Any:
    from train.inference.queries import History

    media, raw_ids, times, ratings, statuses = zip(*rows, strict=True)
    return History(
        np.array([ids[key] for key in zip(media, raw_ids, strict=True)]),
        np.array(times) + 1_300_000_000 - time_origin,
        np.array(ratings, np.float32), np.array(statuses, np.uint8), np.ones(len(rows), np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_candidates_are_blind_to_each_other(
    runs: dict[str, Path], history: Path, tmp_path: Path, objective: str
) -> None:
    """Permuted candidates get equal numbers, and one alone the same as among others, and as in the whole list."""
    names = [f"a{i}" for i in (5, 2, 9, 14, 4, 7)]
    path = tmp_path / "candidates.txt"

    def numbers(listed: list[str]) -> dict[str, tuple[float, float | None]]:
        path.write_text("\n".join(listed) + "\n")
        ann = lists(recommend_steps(runs[objective], history, at=AT, candidates=path))["ann"]
        assert ann.media["manga"] == ()
        return {entry.item: (entry.probability, entry.rating) for entry in ann.media["anime"]}

    whole = numbers(names)
    assert set(whole) == set(names)
    assert numbers([names[i] for i in (3, 5, 0, 4, 2, 1)]) == whole
    for name in names[:3]:
        assert numbers([name])[name] == pytest.approx(whole[name], rel=1e-5)
    full = lists(recommend_steps(runs[objective], history, k=100, at=AT))["ann"].media["anime"]
    for entry in full:
        if entry.item in whole:
            assert (entry.probability, entry.rating) == pytest.approx(whole[entry.item], rel=1e-5)


def test_candidates_name_media_or_mean_all_of_them(runs: dict[str, Path], history: Path, tmp_path: Path) -> None:
    """Seen ones are left out unless asked for; unknown ones are named; none known is an error."""
    path = tmp_path / "candidates.csv"
    path.write_text("item,medium\na1,anime\na2,anime\nm1,manga\nm1,anime\nqq,manga\n")
    records = list(recommend_steps(runs["causal"], history, at=AT, candidates=path))
    assert "items unknown to the run: 2, skipped: anime/m1, manga/qq" in notes(iter(records))
    ann = lists(iter(records))["ann"]
    assert [entry.item for entry in ann.media["anime"]] == ["a2"]
    assert [entry.item for entry in ann.media["manga"]] == ["m1"]
    ann = lists(recommend_steps(runs["causal"], history, at=AT, candidates=path, seen=True))["ann"]
    assert {entry.item for entry in ann.media["anime"]} == {"a1", "a2"}
    assert (
        len(
            lists(recommend_steps(runs["causal"], history, k=1, at=AT, candidates=path, seen=True))["ann"].media[
                "anime"
            ]
        )
        == 1
    )
    path.write_text("qq\n")
    with pytest.raises(ConfigError, match="knows none of its items"):
        list(recommend_steps(runs["causal"], history, at=AT, candidates=path))


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_a_history_of_which_nothing_is_known_still_gets_lists(
    runs: dict[str, Path], tmp_path: Path, objective: str
) -> None:
    """And is told so; the same as anyone else without a history."""
    path = written(
        tmp_path / "h.csv", "eve,x1,anime,1300000000,,\neve,m1,music,1300000001,,\ndan,x2,anime,1300000000,,\n"
    )
    records = list(recommend_steps(runs[objective], path, at=AT))
    said = notes(iter(records))
    assert "items unknown to the run: 3, with 3 of 3 events, skipped: anime/x1, music/m1, anime/x2" in said
    assert "users without any event that the run knows: 2" in said
    found = lists(iter(records))
    assert found["eve"].events == 0
    assert found["eve"].unknown_items == ("anime/x1", "music/m1")
    assert [entry.item for entry in found["eve"].media["anime"]] == [
        entry.item for entry in found["dan"].media["anime"]
    ]
    assert len(found["eve"].media["anime"]) == len(found["eve"].media["manga"]) == 10


def test_the_most_recent_tokens_of_a_long_history_count(runs: dict[str, Path], tmp_path: Path) -> None:
    """Events before them change no number, but what was seen in them is left out."""
    rows = [f"u,a{i % 7},anime,{1_300_000_000 + i},,completed\n" for i in range(100)]
    long = written(tmp_path / "long.csv", "".join(rows))
    short = written(tmp_path / "short.csv", "".join(rows[-31:]))
    other = written(tmp_path / "other.csv", "u,m0,manga,1300000000,,completed\n" + "".join(rows[1:]))
    lists_of = [lists(recommend_steps(runs["causal"], path, at=AT, k=50))["u"].media for path in (long, short, other)]
    assert lists_of[0] == lists_of[1]
    assert lists_of[0]["anime"] == lists_of[2]["anime"]
    assert {entry.item for entry in lists_of[0]["manga"]} - {entry.item for entry in lists_of[2]["manga"]} == {"m0"}


def test_the_time_is_the_one_given_else_now_else_the_last_events(
    runs: dict[str, Path], history: Path, tmp_path: Path
) -> None:
    """Now is taken for a model of today's data; for an old one the time of the history's last event, known or not."""
    for at in (datetime(2011, 5, 10, 4, tzinfo=UTC), datetime(2011, 5, 10, 4), 1_305_000_000):
        found = lists(recommend_steps(runs["causal"], history, at=at))["ann"]
        assert found == lists(recommend_steps(runs["causal"], history, at=AT))["ann"]
    records = list(recommend_steps(runs["causal"], history))
    assert "that of each history's last event, because now is" in notes(iter(records))
    found = lists(iter(records))
    assert [(one.at, one.time_source) for one in found.values()] == [
        (1_300_000_400, "last event"), (1_300_000_000, "last event")
    ]  # fmt: skip
    today = int(time.time()) - 86_400
    events = tmp_path / "today.csv"
    lines = [f"u{i % 9},a{i % 5},{today - i},Title {i % 5}" for i in range(300)]
    events.write_text("\n".join(["user,item,timestamp,title", *lines]) + "\n")
    build_shards([str(events)], tmp_path / "today", window_len=16, split="users:0.2")
    for _ in train_model(tmp_path / "today", tmp_path / "run", {**GIVEN, "steps": 2}):
        pass
    records = list(recommend_steps(tmp_path / "run", events, k=1, seen=True))
    assert "time: now" in notes(iter(records))
    one = lists(iter(records))["u0"]
    assert one.time_source == "now"
    assert abs(one.at - time.time()) < 60
    assert one.media["item"][0].title == f"Title {one.media['item'][0].item[1:]}"
    assert one.media["item"][0].rating is None  # nothing there is rated
    assert "are later than that time" in notes(recommend_steps(runs["causal"], history, at=1_300_000_050))
    with pytest.raises(ConfigError, match="in the years 1970 to 9999"):
        list(recommend_steps(runs["causal"], history, at=-1))


def test_times_far_from_those_of_training_are_warned_about(runs: dict[str, Path], tmp_path: Path) -> None:
    """More than a year and more than the span of training before or after it: as a rule another unit."""
    path = tmp_path / "h.csv"
    soon, late = 1_310_000_000, 4_000_000_000
    for unit, moment, warned in (("s", soon, False), ("ms", soon, True), ("s", late, True)):
        path.write_text(f"user,item,medium,timestamp\nme,1,anime,{moment}\n")
        reading = BuildConfig(time_unit=unit)
        assert (
            "far from the times of training" in notes(recommend_steps(runs["causal"], path, reading=reading))
        ) == warned


def test_what_was_read_is_said(runs: dict[str, Path], tmp_path: Path) -> None:
    """Rejected rows, duplicates, and ratings on another scale."""
    path = written(tmp_path / "h.csv", "u,a1,anime,1300000000,95,\nu,a1,anime,1300000000,90,\nu,,anime,1300000000,,\n")
    said = notes(recommend_steps(runs["causal"], path, at=AT))
    assert "1 of 3 rows are not events: missing_item 1; row 4" in said
    assert "1 duplicate" in said
    assert "ratings up to 90, but training had at most 10" in said


def test_ratings_on_another_scale_do_not_count(runs: dict[str, Path], tmp_path: Path) -> None:
    """Of 100 instead of 10: answers are those for a history without ratings."""
    asked = []
    for rating in ("90", "", "10"):
        path = written(tmp_path / "h.csv", f"u,a1,anime,1300000000,{rating},\n")
        asked.append(lists(recommend_steps(runs["causal"], path, at=AT))["u"].media["anime"])
    assert asked[0] == asked[1] != asked[2]


def test_a_history_without_media_belongs_to_the_only_one(runs: dict[str, Path], tmp_path: Path) -> None:
    """And is refused where the run has several; its columns can be named."""
    path = tmp_path / "h.csv"
    path.write_text("who,item,timestamp\nu,a1,1300000000\n")
    with pytest.raises(ConfigError, match="no column for user"):
        list(recommend_steps(runs["causal"], path))
    with pytest.raises(ConfigError, match="no column for medium"):
        list(recommend_steps(runs["causal"], path, reading=BuildConfig(columns={"user": "who"})))
    with pytest.raises(ConfigError, match="at least 1"):
        list(recommend_steps(runs["causal"], path, k=0))
    path.write_text("")
    with pytest.raises(DataError, match="empty"):
        list(recommend_steps(runs["causal"], path))


def test_everyone_gets_what_they_would_get_alone(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of all users equals lists asked one by one, whatever the size of a batch; progress ends at all."""
    monkeypatch.setattr(train.inference.every_user, "batch_users", lambda manifest: 7)
    manifest, items = load_manifest(tiny_dataset), read_items(tiny_dataset)
    out = tmp_path / "All.parquet"
    records = list(recommend_all_steps(runs["causal"], tiny_dataset, out, k=3))
    assert [r.done for r in records if isinstance(r, Progress)] == [0, 7, 14, 21, 28, 35, 42, 49, 50]
    table = pq.read_table(out)
    assert records[-1] == Written(out, 50, len(table))
    assert pq.ParquetFile(out).num_row_groups == 8
    assert [path.name for path in tmp_path.iterdir()] == ["All.parquet"]
    assert table.column_names == ["user", "at", "medium", "rank", "item", "title", "probability", "rating"]
    rows: dict[str, dict[str, list[Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["user"], {}).setdefault(row["medium"], []).append(row)
    assert list(rows) == read_user_ids(tiny_dataset)
    events = load_manifest(tiny_dataset).sources[0].path
    alone = lists(recommend_steps(runs["causal"], events, k=3))
    with HistoryReader(tiny_dataset, manifest) as reader:
        histories = stored_histories(reader.read(0, 50), 0, read_held_out(tiny_dataset).training_events)
    for user, history in zip(rows, histories, strict=True):
        for medium, name in enumerate(manifest.data_schema.media):
            found, listed = rows[user].get(name, []), alone[user].media[name]
            assert [row["rank"] for row in found] == list(range(1, len(found) + 1))
            assert [row["item"] for row in found] == [entry.item for entry in listed]
            np.testing.assert_allclose(
                [row["probability"] for row in found], [e.probability for e in listed], rtol=1e-4
            )
            low = manifest.data_schema.medium_offsets[medium]
            seen = {items.raw_id[i] for i in history.item[history.is_seen()].tolist() if i >= low}
            assert not seen & {row["item"] for row in found if items.medium[low] == row["medium"]}


def test_everyone_gets_the_ratings_that_a_known_user_gets(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    """The run was trained on a known user's ratings; of the same events of a stranger it was not."""
    *_, _ = recommend_all_steps(runs["causal"], tiny_dataset, tmp_path / "all.parquet", k=3)
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    for user in read_user_ids(tiny_dataset)[:3]:
        alone = (
            TrainedRun(runs["causal"]).recommend(user, k=3, dataset=tiny_dataset, progress=False).to_arrow().to_pylist()
        )
        found = [row for row in rows if row["user"] == user]
        assert [row["item"] for row in found] == [row["item"] for row in alone]
        np.testing.assert_allclose([row["rating"] for row in found], [row["rating"] for row in alone], rtol=1e-4)


def test_a_table_of_all_users_is_whole_or_not_there(runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path) -> None:
    """Left early it leaves nothing; what exists is not written over unasked; another dataset is refused."""
    out = tmp_path / "all.parquet"
    records = recommend_all_steps(runs["masked"], tiny_dataset, out, k=2)
    while not (isinstance(step := next(records), Progress) and step.done):
        pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    records.close()
    assert list(tmp_path.iterdir()) == []
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        list(recommend_all_steps(runs["masked"], tiny_dataset, out))
    assert out.read_text() == "mine"
    list(recommend_all_steps(runs["masked"], tiny_dataset, out, overwrite=True))
    assert pq.read_table(out).num_rows > 100
    with pytest.raises(ConfigError, match="its folder does not exist"):
        list(recommend_all_steps(runs["masked"], tiny_dataset, tmp_path / "no" / "all.parquet"))
    build_shards([load_manifest(tiny_dataset).sources[0].path], tmp_path / "other", window_len=16)
    with pytest.raises(ConfigError, match="was trained on the dataset"):
        list(recommend_all_steps(runs["masked"], tmp_path / "other", tmp_path / "new.parquet"))
