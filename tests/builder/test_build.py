"""From event files to a dataset: the stored data equal those of a naive build, for any number of workers."""

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference_build as reference
import zarr
from invented_events import invent_events, write_csv

from streamfeat import BuildConfig, build_steps
from streamfeat.builder import plan
from streamfeat.builder.coordinator import Progress, build_shards
from streamfeat.errors import ConfigError, DataError
from streamfeat.packings.plan_windows import Extent, SplitLabel, count_splits, create_packings
from streamfeat.schema import EVENT_FIELDS
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.store.verify import Problem, verify_steps

SEED = 20221221
MEDIA_SETS = [{"movie": 40}, {"anime": 30, "manga": 20}, {"a": 5, "b": 50, "c": 9}]


@pytest.fixture
def small_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes several partitions of few data."""
    monkeypatch.setattr(plan, "PARTITION_ROWS", 100)


def tree_digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stored_tokens(out: Path, split: str, packing: int) -> dict[str, np.ndarray]:
    group = zarr.open_group(str(out / "windows.zarr"), mode="r")[f"{split}/{packing}"]
    return {name: group[name][:].ravel() for name in group}


def expected_tokens(
    manifest: Manifest, dataset: reference.Dataset, stream: list[reference.Token]
) -> dict[str, np.ndarray]:
    """The arrays of a naive packing, padded to whole windows."""
    schema = manifest.data_schema
    num = -(-len(stream) // schema.window_len) * schema.window_len
    arrays = {f.name: np.full(num, f.pad, f.dtype) for f in schema.token_fields()}
    ids = {key: number for number, key in enumerate(dataset.items)}
    for k, token in enumerate(stream):
        arrays["user"][k] = token.user
        if token.place < 0:
            for field in schema.token_fields():
                if field.name != "user":
                    arrays[field.name][k] = field.cls
            continue
        event = dataset.histories[token.user][token.place]
        arrays["item"][k] = ids[event.medium, event.item]
        arrays["position"][k] = token.place % schema.window_len
        arrays["time"][k] = event.time - schema.time_origin
        arrays["status"][k] = event.status
        rating = np.array([math.nan if event.rating is None else event.rating], np.float32)
        arrays["rating"][k] = schema.rating.encode(rating)[0]
        arrays["completion"][k] = schema.completion.encode(np.array([event.completion], np.float32))[0]
    return arrays


@pytest.mark.parametrize("media", MEDIA_SETS)
@pytest.mark.parametrize("crop", [0, 7])
@pytest.mark.usefixtures("small_partitions")
def test_stored_windows_equal_a_naive_packing(tmp_path: Path, media: dict[str, int], crop: int) -> None:
    """Both splits, two packings, one to three media, users longer than a window, one-event users, crops."""
    events = invent_events(seed=3, num_users=40, media=media)
    out = tmp_path / "out"
    manifest = build_shards(
        [str(write_csv(tmp_path / "e.csv", events))], out, window_len=16, split="users:0.25", packings=2,
        chunk_windows=2, shard_windows=4, max_document_len=crop or "unlimited",
    )  # fmt: skip
    num_partitions = 1 << (-(-len(events) // 100) - 1).bit_length()
    naive = reference.build(events, seed=SEED, num_partitions=num_partitions, share=0.25)
    assert num_partitions > 2
    for split, packing in (("training", 0), ("training", 1), ("validation", 0)):
        stream = reference.pack(naive, seed=SEED, split=split, packing=packing, max_document_len=crop or math.inf)
        assert manifest.splits[split].tokens == len(stream)
        stored, expected = stored_tokens(out, split, packing), expected_tokens(manifest, naive, stream)
        assert stored.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(stored[name], values, err_msg=f"{split} {packing} {name}")
    users = pq.read_table(out / "users.parquet").to_pydict()
    assert users["raw_id"] == naive.users
    assert {u for u, s in enumerate(users["split"]) if s == "validation"} == naive.validation
    items = pq.read_table(out / "items.parquet").to_pydict()
    assert list(zip(items["medium"], items["raw_id"], strict=True)) == naive.items
    assert manifest.cleaning["duplicates"] == naive.duplicates


@pytest.mark.usefixtures("small_partitions")
def test_each_training_event_lies_in_a_packing_exactly_once(tmp_path: Path) -> None:
    """Without crops, (user, place in the history) of the training users occurs once in every packing."""
    events = invent_events(seed=5, num_users=30, media={"x": 25})
    out = tmp_path / "out"
    manifest = build_shards([str(write_csv(tmp_path / "e.csv", events))], out, window_len=1024, packings=3)
    group = zarr.open_group(str(out / "histories.zarr"), mode="r")
    lengths = np.diff(group["offsets"][:])
    users = pq.read_table(out / "users.parquet").to_pydict()
    expected = {(u, p) for u, n in enumerate(lengths) if users["split"][u] == "training" for p in range(n)}
    for packing in range(3):
        tokens = stored_tokens(out, "training", packing)
        events_only = tokens["item"] < manifest.num_items
        pairs = list(zip(tokens["user"][events_only].tolist(), tokens["position"][events_only].tolist(), strict=True))
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == expected


@pytest.mark.usefixtures("small_partitions")
def test_histories_hold_every_event_oldest_first(tmp_path: Path) -> None:
    """`histories.zarr` equals the histories of the naive build, one after the other."""
    events = invent_events(seed=11, num_users=25, media={"x": 25, "y": 4}, rating_step=0.37)
    out = tmp_path / "out"
    manifest = build_shards([str(write_csv(tmp_path / "e.csv", events))], out)
    partitions = 1 << (-(-len(events) // 100) - 1).bit_length()
    naive = reference.build(events, seed=SEED, num_partitions=partitions, share=0.01)
    group = zarr.open_group(str(out / "histories.zarr"), mode="r")
    assert set(group) == {*EVENT_FIELDS, "offsets", "partition_offsets"}
    flat = [event for history in naive.histories for event in history]
    assert group["offsets"][:].tolist() == np.cumsum([0, *map(len, naive.histories)]).tolist()
    assert group["partition_offsets"][:].tolist() == naive.partition_edges
    assert [naive.items[i] for i in group["item"][:]] == [(e.medium, e.item) for e in flat]
    assert (group["time"][:].astype(np.int64) + manifest.data_schema.time_origin).tolist() == [e.time for e in flat]
    ratings = manifest.data_schema.rating.decode(group["rating"][:])
    np.testing.assert_array_equal(ratings, np.array([e.rating for e in flat], np.float32))


def test_the_manifest_holds_the_loss_scales(tmp_path: Path) -> None:
    """Entropy of training popularity and variance of training ratings, both without planned events."""
    events = invent_events(seed=2, num_users=60, media={"anime": 20, "manga": 10})
    manifest = build_shards([str(write_csv(tmp_path / "e.csv", events))], tmp_path / "out", split="users:0.3")
    naive = reference.build(events, seed=SEED, num_partitions=1, share=0.3)
    trained = [e for u, h in enumerate(naive.histories) if u not in naive.validation for e in h]
    for scale in manifest.scales:
        mine = [e for e in trained if e.medium == scale.medium and e.status != 0]
        ratings = np.array([e.rating for e in mine if e.rating is not None])
        counts = np.unique([e.item for e in mine], return_counts=True)[1]
        shares = counts / counts.sum()
        assert scale.targets == len(mine)
        assert scale.ratings == len(ratings)
        assert scale.watch_entropy == pytest.approx(-(shares * np.log(shares)).sum())
        assert scale.rating_mean == pytest.approx(ratings.mean())
        assert scale.rating_variance == pytest.approx(ratings.var())
    assert manifest.time_min == min(e.time for e in trained) - manifest.data_schema.time_origin
    assert manifest.time_last == max(e.time for e in trained)
    targets = repeats = 0
    for history in naive.histories:
        for k, event in enumerate(history):
            if event.status != 0:
                earlier = [(e.medium, e.item) for e in history[:k] if e.status != 0]
                targets, repeats = targets + 1, repeats + ((event.medium, event.item) in earlier)
    assert manifest.repeat_share == pytest.approx(repeats / targets)


@pytest.mark.usefixtures("small_partitions")
def test_the_same_bytes_come_from_one_two_and_three_workers(tmp_path: Path) -> None:
    """Every file of the dataset, receipts and manifest included."""
    events = write_csv(tmp_path / "e.csv", invent_events(seed=1, num_users=80, media={"anime": 30, "manga": 9}))
    trees = []
    for workers in (1, 2, 3):
        out = tmp_path / f"out{workers}"
        build_shards([str(events)], out, workers=workers, window_len=16, chunk_windows=1, shard_windows=4)
        trees.append(tree_digests(out))
    assert len(trees[0]) > 30
    assert trees[0] == trees[1] == trees[2]


def test_a_rerun_is_up_to_date_and_another_configuration_is_refused(tmp_path: Path, tiny_events: list) -> None:
    """The error names both values and the remedy, and the dataset does not change."""
    events, out = str(write_csv(tmp_path / "e.csv", tiny_events)), tmp_path / "out"
    first = build_shards([events], out, window_len=32)
    before = tree_digests(out)
    assert build_shards([events], out, window_len=32) == first
    with pytest.raises(ConfigError, match=r"window_len: there 32, now 64(.|\n)*--overwrite"):
        build_shards([events], out, window_len=64)
    assert tree_digests(out) == before


def test_more_packings_are_added_and_the_first_ones_stay(tmp_path: Path, tiny_events: list) -> None:
    """A rerun with a larger number adds packings; with a smaller one it changes nothing."""
    events, out = str(write_csv(tmp_path / "e.csv", tiny_events)), tmp_path / "out"
    one = build_shards([events], out, window_len=32)
    before = tree_digests(out / "windows.zarr")
    three = build_shards([events], out, window_len=32, packings=3)
    after = tree_digests(out / "windows.zarr")
    assert before.items() <= after.items()
    assert three.fingerprint == one.fingerprint
    assert three.splits["training"].packings == 3
    together = tmp_path / "together"
    build_shards([events], together, window_len=32, packings=3)
    assert tree_digests(together / "windows.zarr") == after
    assert build_shards([events], out, window_len=32, packings=2).splits["training"].packings == 3


def test_filters_drop_items_then_users_once(tmp_path: Path, tiny_events: list) -> None:
    """Users are counted after rare items are removed. Nothing is filtered again after that."""
    events, out = str(write_csv(tmp_path / "e.csv", tiny_events)), tmp_path / "out"
    manifest = build_shards([events], out, min_item_events=12, min_user_events=5)
    naive = reference.build(tiny_events, seed=SEED, num_partitions=1, share=0.01, min_item_events=12, min_user_events=5)
    assert 0 < len(naive.users) < 50
    assert pq.read_table(out / "users.parquet")["raw_id"].to_pylist() == naive.users
    assert pq.read_table(out / "users.parquet")["events"].to_pylist() == [len(h) for h in naive.histories]
    assert pq.read_table(out / "items.parquet")["raw_id"].to_pylist() == [raw for _, raw in naive.items]
    assert manifest.cleaning["filtered_by_item"] > 0


def test_ids_of_any_kind_stay_exact_and_apart(tmp_path: Path) -> None:
    """Leading zeros, decimals, numbers beyond 64 bits, unicode: each is a separate user and item."""
    ids = ["7", "007", "7.0", "-7", str(2**53 + 1), str(2**63 - 1), str(2**63), str(2**64 + 5), "é", "用户", "a b"]
    lines = ["user,item,timestamp", *(f"{u},{i},{1_400_000_000 + k}" for u in ids for k, i in enumerate(ids))]
    path = tmp_path / "e.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    build_shards([str(path)], tmp_path / "out")
    users = pq.read_table(tmp_path / "out" / "users.parquet").to_pydict()
    assert users["raw_id"] == sorted(ids, key=str.encode)
    assert users["events"] == [len(ids)] * len(ids)
    assert set(pq.read_table(tmp_path / "out" / "items.parquet")["raw_id"].to_pylist()) == set(ids)


def test_a_user_is_one_across_files_that_write_its_id_as_number_and_as_text(tmp_path: Path) -> None:
    """Two files, one with integer ids only, the other with texts among them."""
    (tmp_path / "a.csv").write_text("user,item,timestamp\n12,1,1400000000\n13,1,1400000001\n")
    (tmp_path / "b.csv").write_text("user,item,timestamp\nx,1,1400000000\n12,y,1400000002\n")
    build_shards([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], tmp_path / "out")
    users = pq.read_table(tmp_path / "out" / "users.parquet").to_pydict()
    assert dict(zip(users["raw_id"], users["events"], strict=True)) == {"12": 2, "13": 1, "x": 1}


def test_bad_rows_are_listed_and_too_many_stop_the_build(tmp_path: Path) -> None:
    """`rejected.csv` names file, line and reason; above --max-rejected the error quotes the first ones."""
    good = [f"u{k},i,{1_400_000_000 + k}" for k in range(200)]
    path = tmp_path / "e.csv"
    path.write_text("\n".join(["user,item,timestamp", *good[:50], ",i,1400000000", *good[50:], "u,i,soon"]) + "\n")
    manifest = build_shards([str(path)], tmp_path / "out")
    rows = (tmp_path / "out" / "rejected.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1:3] for row in rows] == [["52", "missing_user"], ["203", "unparsable_time"]]
    assert manifest.num_events == 200
    assert not [found for found in verify_steps(tmp_path / "out") if isinstance(found, Problem)]  # its receipt, too
    with pytest.raises(DataError, match=r"2 of 202 rows are bad(.|\n)*e.csv:52: missing_user(.|\n)*--max-rejected"):
        build_shards([str(path)], tmp_path / "strict", max_rejected=0.001)


def test_media_select_and_order_and_planned_events_can_be_left_out(tmp_path: Path, tiny_events: list) -> None:
    """Events of other media are counted as left out, not rejected; an unknown medium is refused."""
    events = str(write_csv(tmp_path / "e.csv", tiny_events))
    manifest = build_shards([events], tmp_path / "m", media=["manga"])
    assert manifest.data_schema.media == ("manga",)
    assert manifest.cleaning["left_out_medium"] == sum(e.medium == "anime" for e in tiny_events)
    swapped = build_shards([events], tmp_path / "s", media=["manga", "anime"], keep_planned=False)
    assert swapped.data_schema.media == ("manga", "anime")
    assert swapped.cleaning["left_out_planned"] == sum(e.status == 0 for e in tiny_events)
    with pytest.raises(ConfigError, match=r"'books': no event has this medium; the events have anime, manga"):
        build_shards([events], tmp_path / "b", media=["books"])


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, tiny_events: list) -> None:
    """Even with --overwrite."""
    events = str(write_csv(tmp_path / "e.csv", tiny_events))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="not empty and does not hold a dataset"):
        build_shards([events], tmp_path / "home")
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_odd_times_are_kept_and_counted(tmp_path: Path) -> None:
    """Times before 1990, or more than a day after the file was written."""
    path = tmp_path / "e.csv"
    path.write_text("user,item,timestamp\nu,a,86400\nu,b,1400000000\nu,c,4000000000\nv,c,1400000000\n")
    manifest = build_shards([str(path)], tmp_path / "out", time_unit="s")
    assert manifest.num_events == 4
    assert manifest.cleaning["odd_before_1990"] == 1
    assert manifest.cleaning["odd_after_the_file"] == 1


def test_a_build_of_times_before_1990_is_refused_unless_their_unit_is_given(tmp_path: Path) -> None:
    """As pandas makes them of seconds that it takes for nanoseconds. The remedy is typed as it stands."""
    times = pa.array([1_500_000_000 + i for i in range(20)], pa.timestamp("ns"))
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"user": ["u", "v"] * 10, "item": range(20), "time": times}), path, version="2.6")
    with pytest.raises(ConfigError, match=r"20 of 20 events are from before 1990.*--overwrite.*--time-unit iso"):
        build_shards([str(path)], tmp_path / "out")
    *_, built = build_steps([str(path)], tmp_path / "out", BuildConfig(time_unit="iso"), overwrite=True)
    assert built.manifest.num_events == 20
    late = "".join(f"u,{i},{1_400_000_000 + i}\n" for i in range(20))
    (tmp_path / "e.csv").write_text("user,item,timestamp\nu,a,0\nu,b,0\n" + late)
    assert build_shards([str(tmp_path / "e.csv")], tmp_path / "few").num_events == 22


def test_a_build_of_times_after_the_file_is_refused_unless_their_unit_is_given(tmp_path: Path) -> None:
    """A few such events are only counted. A file whose last change cannot be right says nothing about its events."""
    path = tmp_path / "e.csv"
    path.write_text("user,item,timestamp\n" + "".join(f"u,{i},{2_500_000_000 + i}\n" for i in range(20)))
    with pytest.raises(ConfigError, match=r"20 of 20 events are later than their file was last changed.*--time-unit"):
        build_shards([str(path)], tmp_path / "out")
    assert build_shards([str(path)], tmp_path / "asked", time_unit="s").cleaning["odd_after_the_file"] == 20
    os.utime(path, (0, 0))
    assert not build_shards([str(path)], tmp_path / "archive").cleaning.get("odd_after_the_file")


@pytest.mark.parametrize("num_windows", [{"training": 2**23, "validation": 9}, {"training": 9, "validation": 2**23}])
def test_no_shard_has_more_chunks_than_a_reader_takes(
    tmp_path: Path, tiny_dataset: Path, num_windows: dict[SplitLabel, int]
) -> None:
    """For any `shard_windows`, which is only an upper limit. Chunks of validation are halved together with those of
    training."""
    config = BuildConfig(window_len=32, chunk_windows=4, shard_windows=2**23)
    extents = {
        split: Extent(*(np.array([number]) for number in (1, 32 * num - 1, 32 * num)))
        for split, num in num_windows.items()
    }
    splits = count_splits(config, extents)
    create_packings(tmp_path, config, load_manifest(tiny_dataset).data_schema, splits)
    for split, num in num_windows.items():
        with ArrayReader(tmp_path, f"windows.zarr/{split}/0/item") as reader:
            assert reader.shape == (num, 32)
            assert (reader.chunk_rows, reader.shard_rows) == (splits[split].chunk_windows, splits[split].shard_windows)


def test_the_largest_numbers_that_options_take_make_a_dataset(tmp_path: Path, tiny_events: list) -> None:
    """It equals the dataset without limits, in one shard."""
    source = str(write_csv(tmp_path / "e.csv", tiny_events))
    largest = {"chunk_windows": 2**48, "shard_windows": 2**48, "max_document_len": 2**48, "seed": 2**63 - 1}
    build_shards([source], tmp_path / "large", window_len=32, **largest)
    build_shards([source], tmp_path / "plain", window_len=32, chunk_windows=1, shard_windows=2**20, seed=2**63 - 1)
    large, plain = (stored_tokens(tmp_path / name, "training", 0) for name in ("large", "plain"))
    for name, values in plain.items():
        np.testing.assert_array_equal(large[name], values)
    for workers in (0, 1025):
        with pytest.raises(ConfigError, match=f"{workers} processes cannot share the work; give 1 to 1,024"):
            build_shards([source], tmp_path / "none", workers=workers)


@pytest.mark.parametrize("change", ["rewritten in place", "gone"])
def test_an_event_file_that_changes_while_it_is_read_makes_no_dataset(
    tmp_path: Path, tiny_events: list, change: str
) -> None:
    """The rows read before and after the change belong to no version of the file."""
    source = write_csv(tmp_path / "e.csv", tiny_events)
    steps = build_steps([str(source)], tmp_path / "out", BuildConfig(window_len=32))
    next(step for step in steps if isinstance(step, Progress) and step.done == step.total)
    if change == "gone":
        source.unlink()
    else:
        source.write_bytes(source.read_bytes().replace(b",anime,", b",manga,"))
    with pytest.raises(DataError, match=r"was removed|changed while it was read; let no program write to it"):
        list(steps)
    assert not (tmp_path / "out/dataset.json").exists()
