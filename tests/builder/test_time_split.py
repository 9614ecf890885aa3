"""A split by time: training before the first cut, validation up to the second, the test after it, for all users."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import reference_build as reference
from builder.test_last_two import check_windows, digests
from invented_events import at_the_same_time, invent_events, write_csv

import streamfeat
from streamfeat import BuildConfig, build_steps, load_manifest
from streamfeat.builder import plan
from streamfeat.builder.coordinator import build_shards
from streamfeat.builder.repair import Repaired, repair_steps
from streamfeat.errors import ConfigError, DataError
from streamfeat.live.folder import start_run
from streamfeat.live.producer import Held, produce
from streamfeat.split_rule import SplitRule
from streamfeat.store.verify import Problem, verify_steps

SEED = 20221221
OPTIONS: dict[str, Any] = {"window_len": 16, "split": "time:0.2", "packings": 2, "chunk_windows": 2, "shard_windows": 8}
DAY = 86_400


@pytest.fixture(scope="module")
def events() -> list[reference.Event]:
    """Two media, planned events, ties."""
    return at_the_same_time(invent_events(seed=3, num_users=90, media={"anime": 60, "manga": 20}, mean_events=10))


@pytest.fixture(scope="module")
def cuts(events: list[reference.Event]) -> tuple[int, int]:
    """Of `time:0.2`, from a sorted list of the times of all kept events."""
    return cuts_of(events, 0.2)


def cuts_of(events: list[reference.Event], share: float) -> tuple[int, int]:
    histories = reference.build(events, seed=SEED, num_partitions=1).histories
    times = sorted(event.time for history in histories for event in history)
    held = round(share * len(times))
    return times[-2 * held], times[-held]


@pytest.fixture(scope="module")
def naive(events: list[reference.Event], cuts: tuple[int, int]) -> reference.Dataset:
    num_partitions = 1 << (-(-len(events) // 100) - 1).bit_length()
    assert num_partitions > 2
    return reference.build(events, seed=SEED, num_partitions=num_partitions, cuts=cuts)


@pytest.fixture(scope="module")
def small_partitions() -> Iterator[None]:
    """Several partitions from little data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "PARTITION_ROWS", 100)
        yield


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory, events: list[reference.Event]) -> str:
    return str(write_csv(tmp_path_factory.mktemp("time") / "e.csv", events))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, csv: str, small_partitions: None) -> Path:
    """Tests only read it."""
    out = tmp_path_factory.mktemp("time") / "data"
    build_shards([csv], out, **OPTIONS)
    return out


def check_dataset(root: Path, dataset: reference.Dataset) -> None:
    """Compares tables and windows with the naive build."""
    for packing in (0, 1):
        stream = reference.pack(dataset, seed=SEED, split="training", packing=packing)
        check_windows(root, "training", packing, dataset, [stream[i : i + 16] for i in range(0, len(stream), 16)])
    check_windows(root, "validation", 0, dataset, reference.pack_last(dataset, seed=SEED, window_len=16))
    users = pq.read_table(root / "users.parquet").to_pydict()
    assert users["raw_id"] == dataset.users
    for split in ("training", "validation"):
        assert users[f"{split}_events"] == [dataset.events_of(user, split) for user in range(len(dataset.users))]
    assert users["split"] == ["training" if trained else "validation" for trained in dataset.trained]
    items = pq.read_table(root / "items.parquet").to_pydict()
    assert list(zip(items["medium"], items["raw_id"], strict=True)) == dataset.items


def test_windows_and_tables_are_those_of_a_naive_build(built: Path, naive: reference.Dataset) -> None:
    """Training windows hold what lies before the first cut; validation windows end with a user's first event with an
    item target between the cuts."""
    check_dataset(built, naive)
    assert 20 < len(naive.held_out) < 85
    assert any(naive.trained[user] < place for user, place in naive.held_out.items()), "a planned event in between"
    assert 0 in naive.trained, "a user who is new after the first cut"
    assert not [found for found in verify_steps(built) if isinstance(found, Problem)]


def test_filters_count_training_events_alone(
    tmp_path: Path, csv: str, events: list[reference.Event], cuts: tuple[int, int], small_partitions: None
) -> None:
    """Of items and users. The cuts are those without filters."""
    build_shards([csv], tmp_path / "out", **OPTIONS, min_item_events=3, min_user_events=4)
    counts = {"min_item_events": 3, "min_user_events": 4}
    num_partitions = 1 << (-(-len(events) // 100) - 1).bit_length()
    dataset = reference.build(events, seed=SEED, num_partitions=num_partitions, cuts=cuts, **counts)
    other = reference.build(events, seed=SEED, num_partitions=num_partitions, **counts)
    assert dataset.users != other.users
    assert set(dataset.items) != set(other.items)
    check_dataset(tmp_path / "out", dataset)
    assert load_manifest(tmp_path / "out").time_split.validation_start == cuts[0]  # type: ignore[union-attr]


def test_ids_follow_training_events_and_items_without_any_come_last(built: Path, cuts: tuple[int, int]) -> None:
    """Inside each medium. The manifest counts the items that training never targets."""
    items = pq.read_table(built / "items.parquet").to_pydict()
    last = [medium for medium, targets in zip(items["medium"], items["targets"], strict=True) if not targets]
    assert last
    manifest = load_manifest(built)
    assert manifest.time_split is not None
    assert manifest.time_split.unseen_items == len(last)
    assert sum(items["events"]) == manifest.num_events


def test_the_manifest_counts_training_alone(
    built: Path, naive: reference.Dataset, cuts: tuple[int, int], events: list[reference.Event]
) -> None:
    """Repeats, times, targets; and what lies after the cuts."""
    manifest = load_manifest(built)
    assert manifest.time_split is not None
    facts = manifest.time_split.model_dump()
    kept = [event for history in naive.histories for event in history]
    targets = [[(e.time, e.medium, e.item) for e in history if e.status != 0] for history in naive.histories]
    asked = [any(time >= cuts[1] for time, *_ in of) for of in targets]
    known = [any(event.time < cuts[1] for event in history) for history in naive.histories]
    trained = [[(medium, item) for time, medium, item in of if time < cuts[0]] for of in targets]
    assert facts == {
        "validation_start": cuts[0],
        "test_start": cuts[1],
        "validation_events": sum(cuts[0] <= event.time < cuts[1] for event in kept),
        "test_events": sum(event.time >= cuts[1] for event in kept),
        "test_users": sum(a and k for a, k in zip(asked, known, strict=True)),
        "new_users": sum(a and not k for a, k in zip(asked, known, strict=True)),
        "unseen_items": len(naive.items) - len({key for of in trained for key in of}),
    }
    assert facts["test_users"] > 10 < 5 * facts["new_users"]
    repeats = sum(key in of[:place] for of in trained for place, key in enumerate(of))
    assert manifest.repeat_share == pytest.approx(repeats / sum(map(len, trained)))
    assert manifest.time_max == max(e.time for e in kept if e.time < cuts[0]) - manifest.data_schema.time_origin
    assert sum(scales.targets for scales in manifest.scales) == sum(map(len, trained))
    assert manifest.validation_targets == "last"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.45])
def test_a_share_cuts_at_the_exact_event_and_ties_go_after_it(
    tmp_path: Path, csv: str, events: list[reference.Event], share: float
) -> None:
    """Whatever the number of partitions."""
    manifest = build_shards([csv], tmp_path / "out", window_len=16, split=f"time:{share}")
    assert manifest.time_split is not None
    found = (manifest.time_split.validation_start, manifest.time_split.test_start)
    assert found == cuts_of(events, share)


def test_events_of_one_second_lie_together_after_the_cut(tmp_path: Path) -> None:
    """Of 20 events, the last 2 and the 2 before them are asked for; the cut takes all 6 with its time."""
    times = [*range(12), *[100] * 6, 200, 201]
    lines = [f"u{place % 2},i{place},{1_400_000_000 + time}" for place, time in enumerate(times)]
    (tmp_path / "e.csv").write_text("\n".join(["user,item,timestamp", *lines]) + "\n")
    manifest = build_shards([str(tmp_path / "e.csv")], tmp_path / "out", window_len=8, split="time:0.1")
    assert manifest.time_split is not None
    assert manifest.time_split.validation_start == 1_400_000_100
    assert (manifest.time_split.validation_events, manifest.time_split.test_events) == (6, 2)


def test_one_date_leaves_half_of_the_later_events_for_the_test(
    tmp_path: Path, csv: str, naive: reference.Dataset
) -> None:
    """Two dates are taken as they are, in UTC or another zone."""
    times = sorted(event.time for history in naive.histories for event in history)
    date = "2011-03-17"
    first = 1_300_320_000
    later = [time for time in times if time >= first]
    manifest = build_shards([csv], tmp_path / "one", window_len=16, split=f"time:{date}")
    assert manifest.time_split is not None
    assert manifest.time_split.validation_start == first
    assert manifest.time_split.test_start == later[-(len(later) // 2)]
    manifest = build_shards([csv], tmp_path / "two", window_len=16, split=f"time:{date},2011-03-19T02:00+02:00")
    assert manifest.time_split is not None
    assert (manifest.time_split.validation_start, manifest.time_split.test_start) == (first, first + 2 * DAY)


@pytest.mark.parametrize(("split", "lack"), [
    ("time:2000-01-01", "no event before 2000-01-01 00:00:00 UTC is left, so there is no training"),
    ("time:2000-01-01,2000-01-02", "there is no training"),
    ("time:2011-03-14,2011-03-14T00:00:01", "no validation|no user has events before"),
    ("time:2011-03-17,2030-01-01", "there is no test"),
    ("time:2030-01-01", "leaves no event for validation or for the test"),
    ("time:0.0001", "leaves no event for validation or for the test"),
])  # fmt: skip
def test_an_empty_part_is_refused_with_the_option_and_the_times(
    tmp_path: Path, csv: str, split: str, lack: str
) -> None:
    with pytest.raises(DataError, match=rf"--split {split}: (.*)({lack})(.*)the events are from 2011-03-13 "):
        build_shards([csv], tmp_path / "out", window_len=16, split=split)


def test_a_share_that_cuts_twice_in_one_second_is_refused(tmp_path: Path) -> None:
    lines = [f"u{place % 5},i{place},{1_400_000_000 + min(place, 5)}" for place in range(20)]
    (tmp_path / "e.csv").write_text("\n".join(["user,item,timestamp", *lines]) + "\n")
    with pytest.raises(DataError, match="would both begin at 2014-05-13 16:53:25 UTC"):
        build_shards([str(tmp_path / "e.csv")], tmp_path / "out", window_len=8, split="time:0.2")


@pytest.mark.parametrize("split", [
    "time:", "time:0", "time:0.5", "time:1.5", "time:x", "time:2011-13-01", "time:2011-03-17,", "time:2011-03-17,x",
    "time:2011-03-17,2011-03-18,2011-03-19", "time:2011-03-17,0.1", "time",
])  # fmt: skip
def test_a_malformed_split_is_refused_with_all_forms(split: str) -> None:
    with pytest.raises(ValueError, match=r"users:F .* time:F with 0 < F < 0.5, .* time:DATE,DATE, .* got 'time"):
        BuildConfig(split=split)


@pytest.mark.parametrize("dates", ["2011-03-18,2011-03-17", "2011-03-17,2011-03-17T00:00"])
def test_a_second_date_that_is_not_later_is_refused(dates: str) -> None:
    with pytest.raises(ValueError, match="the test at the second one, which must be later"):
        BuildConfig(split=f"time:{dates}")


def test_a_date_without_a_zone_is_utc() -> None:
    assert SplitRule.of("time:2011-03-17 ,2011-03-17T03:00:00.5-01:00").dates == (1_300_320_000, 1_300_334_400)


def test_a_lost_shard_of_validation_is_written_again_with_its_bytes(tmp_path: Path, built: Path) -> None:
    root = shutil.copytree(built, tmp_path / "data")
    shard = root / "windows.zarr/validation/0/item/c/0/0"
    content = shard.read_bytes()
    shard.unlink()
    assert [step.file for step in repair_steps(root) if isinstance(step, Repaired)] == [str(shard.relative_to(root))]
    assert shard.read_bytes() == content


def test_python_builds_and_shows_the_cuts(tmp_path: Path, csv: str) -> None:
    data = streamfeat.build(csv, tmp_path / "data", window_len=16, split="time:2011-03-17,2011-03-19", progress=False)
    last = "  validation from 2011-03-17 00:00:00 UTC, test from 2011-03-19 00:00:00 UTC"
    assert str(data).splitlines()[-1] == last
    with pytest.raises(ConfigError, match=r"build: split must be .* time:DATE,DATE, .* got 'time:tomorrow'"):
        streamfeat.build(csv, tmp_path / "other", split="time:tomorrow")


def test_live_packings_are_those_that_are_built_beforehand(
    tmp_path: Path, csv: str, built: Path, small_partitions: None
) -> None:
    """Byte for byte."""
    root = tmp_path / "live"
    manifest = build_shards([csv], root, **{**OPTIONS, "packings": 0})
    stop = 2 * -(-manifest.splits["training"].windows // 4)
    with start_run(root, manifest, seed=3, batch_windows=4, world_size=1, start=0, stop=stop, disk_bytes=10**9,
                   producers=1) as folder:  # fmt: skip
        for event in produce(root, folder):
            if isinstance(event, Held):
                assert event.kind == "done"
                break
        for packing in ("0", "1"):
            made = digests(folder / "windows.zarr" / packing)
            beforehand = digests(built / "windows.zarr" / "training" / packing)
            shards = {name: digest for name, digest in beforehand.items() if "/c/" in name}
            assert len(shards) >= 7 * 3
            assert shards.items() <= made.items()


@pytest.mark.slow
def test_the_same_bytes_come_from_any_number_of_workers_from_a_stopped_build_and_from_added_packings(
    tmp_path: Path, csv: str, built: Path, small_partitions: None
) -> None:
    build_shards([csv], tmp_path / "two", workers=2, **OPTIONS)
    steps = build_steps([csv], tmp_path / "stopped", BuildConfig(**OPTIONS))
    for step in steps:
        if getattr(step, "stage", "") == "windows" and getattr(step, "done", 0):
            break
    steps.close()
    build_shards([csv], tmp_path / "stopped", **OPTIONS)
    build_shards([csv], tmp_path / "added", **{**OPTIONS, "packings": 0})
    build_shards([csv], tmp_path / "added", **OPTIONS)
    for name in ("two", "stopped", "added"):
        assert digests(tmp_path / name) == digests(built), name
