"""`last:2`: the last two targets of every user are held out, and validation windows hold whole segments."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import reference_build as reference
from invented_events import invent_events, write_csv

from streamfeat import BuildConfig, WindowStream, build_steps, load_manifest
from streamfeat.builder import plan
from streamfeat.builder.coordinator import build_shards
from streamfeat.config import StreamConfig
from streamfeat.live.folder import start_run
from streamfeat.live.producer import Held, produce
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import Manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.store.verify import Problem, verify_steps
from streamfeat.stream.one_window import look_at_window

SEED = 20221221
OPTIONS: dict[str, Any] = {"window_len": 16, "split": "last:2", "packings": 2, "chunk_windows": 2, "shard_windows": 8}


@pytest.fixture(scope="module")
def events() -> list[reference.Event]:
    """Two media, a fifth of the events planned; users with none to two targets, and one far longer than a window."""
    return invent_events(seed=3, num_users=90, media={"anime": 30, "manga": 20}, mean_events=10)


@pytest.fixture(scope="module")
def naive(events: list[reference.Event]) -> reference.Dataset:
    num_partitions = 1 << (-(-len(events) // 100) - 1).bit_length()
    assert num_partitions > 2
    return reference.build(events, seed=SEED, num_partitions=num_partitions)


@pytest.fixture(scope="module")
def small_partitions() -> Iterator[None]:
    """Several partitions from little data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "PARTITION_ROWS", 100)
        yield


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory, events: list[reference.Event]) -> str:
    return str(write_csv(tmp_path_factory.mktemp("last") / "e.csv", events))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, csv: str, small_partitions: None) -> Path:
    """Tests only read it."""
    out = tmp_path_factory.mktemp("last") / "data"
    build_shards([csv], out, **OPTIONS)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def stored(root: Path, split: str, packing: int, field: str) -> np.ndarray:
    """(windows, window_len) as stored on disk."""
    with ArrayReader(root, f"windows.zarr/{split}/{packing}/{field}") as reader:
        return reader.read_rows(0, reader.shape[0])


def check_windows(
    root: Path, split: str, packing: int, dataset: reference.Dataset, windows: list[list[reference.Token]]
) -> None:
    """Checks user, position and event of every token, and PAD after the tokens of each window."""
    schema = load_manifest(root).data_schema
    found = {field.name: stored(root, split, packing, field.name) for field in schema.token_fields()}
    assert len(found["item"]) == len(windows)
    ids = {key: number for number, key in enumerate(dataset.items)}
    for w, window in enumerate(windows):
        for t in range(schema.window_len):
            values = {name: array[w, t] for name, array in found.items()}
            if t >= len(window):
                assert values["user"] == schema.user_tokens.pad
                assert all(v == schema.field(n).pad or v != v for n, v in values.items())
                continue
            assert values["user"] == window[t].user
            if window[t].place < 0:
                assert values["item"] == schema.item_tokens.cls
                assert values["position"] == schema.window_len
                continue
            event = dataset.histories[window[t].user][window[t].place]
            assert values["item"] == ids[event.medium, event.item]
            assert values["time"] == event.time - schema.time_origin
            assert values["status"] == event.status
            assert values["position"] == window[t].place % schema.window_len


def test_validation_windows_are_a_naive_first_fit_of_whole_segments(built: Path, naive: reference.Dataset) -> None:
    """The most recent tokens up to and including the validation target, in packing order; some windows end with PAD."""
    windows = reference.pack_last(naive, seed=SEED, window_len=16)
    check_windows(built, "validation", 0, naive, windows)
    assert len(windows) > 16, "several shards"
    assert sum(len(window) < 16 for window in windows) > 2
    segments = {len(reference.tokens_of(naive, user, "validation")) for user in naive.held_out}
    assert max(segments) > 50
    assert {16, 17} <= segments, "with CLS just inside the window, and without it"
    counts = load_manifest(built).splits["validation"]
    assert counts.windows == len(windows)
    assert counts.tokens == sum(map(len, windows))
    assert counts.packings == 1


def test_training_windows_lay_out_what_comes_before_the_validation_target(
    built: Path, naive: reference.Dataset
) -> None:
    """In every packing. Users with too few targets are there with all events."""
    for packing in (0, 1):
        stream = reference.pack(naive, seed=SEED, split="training", packing=packing)
        check_windows(built, "training", packing, naive, [stream[i : i + 16] for i in range(0, len(stream), 16)])


def test_crops_are_of_training_histories_alone(
    tmp_path: Path, csv: str, naive: reference.Dataset, small_partitions: None
) -> None:
    """`max_document_len` may cut a training history anywhere, but never a validation segment."""
    build_shards([csv], tmp_path / "out", **OPTIONS, max_document_len=7)
    stream = reference.pack(naive, seed=SEED, split="training", packing=1, max_document_len=7)
    check_windows(tmp_path / "out", "training", 1, naive, [stream[i : i + 16] for i in range(0, len(stream), 16)])
    check_windows(tmp_path / "out", "validation", 0, naive, reference.pack_last(naive, seed=SEED, window_len=16))


def test_the_user_table_says_what_is_held_out_and_the_manifest_counts_it(built: Path, naive: reference.Dataset) -> None:
    """(v, v + 1), or (n, 0) for users with fewer than three targets; `split` is training for all."""
    users = pq.read_table(built / "users.parquet").to_pydict()
    assert users["split"] == ["training"] * 90
    for split in ("training", "validation"):
        assert users[f"{split}_events"] == [naive.events_of(user, split) for user in range(90)]
    manifest = load_manifest(built)
    assert manifest.validation_targets == "last"
    assert 5 < manifest.users_with_too_few_targets == 90 - len(naive.held_out) < 80
    assert manifest.splits["validation"].users == len(naive.held_out)
    assert manifest.splits["training"].users == 90
    assert manifest.splits["training"].events == sum(users["training_events"])
    assert manifest.splits["validation"].events == sum(users["validation_events"])
    assert not [found for found in verify_steps(built) if isinstance(found, Problem)]


def test_no_window_holds_a_test_event_and_no_training_window_a_validation_target(built: Path) -> None:
    """In the stored windows: no window has the (user, time, item) of a held-out event that is not planned."""
    manifest, held_out = load_manifest(built), read_held_out(built)
    with HistoryReader(built, manifest) as reader:
        histories = reader.read(0, manifest.num_users)
    seen = {split: event_counts(built, split) for split in ("training", "validation")}
    for user in np.flatnonzero(held_out.validation_events):
        first, last = histories.offsets[user : user + 2]
        place = first + held_out.training_events[user]
        targets = [k for k in range(first, last) if histories.status[k] != 0]
        assert targets[-2] == place
        for k in range(place, last):
            key = (user, k - first)
            assert key not in seen["training"]
            assert (key in seen["validation"]) == (k == place)


def event_counts(root: Path, split: str) -> set[tuple[int, int]]:
    """(user, place in the history) of every event in the split's windows, computed from order and position."""
    user, position, item = (stored(root, split, 0, name) for name in ("user", "position", "item"))
    num_items = load_manifest(root).num_items
    events_of = read_held_out(root).events_of(split)  # type: ignore[arg-type]
    found: dict[int, list[int]] = {}
    for w, t in zip(*np.nonzero(item < num_items), strict=True):
        found.setdefault(int(user[w, t]), []).append(int(position[w, t]))
    pairs = set()
    for who, positions in found.items():
        places = range(events_of[who] - len(positions), events_of[who])
        # Windows of a history may lie in another order than its events, but each position is that of its place.
        assert sorted(positions) == sorted(place % 16 for place in places)
        pairs |= {(who, place) for place in places}
    return pairs


def test_statistics_count_training_events_only(built: Path, naive: reference.Dataset) -> None:
    """Popularity, entropy, ratings and the range of times do not depend on held-out events."""
    manifest = load_manifest(built)
    kept = [
        event for user, history in enumerate(naive.histories) for event in history[: naive.events_of(user, "training")]
    ]
    targets = dict.fromkeys(naive.items, 0)
    for event in kept:
        targets[event.medium, event.item] += event.status != 0
    assert pq.read_table(built / "items.parquet")["targets"].to_pylist() == list(targets.values())
    for scales in manifest.scales:
        counts = np.array([n for (medium, _), n in targets.items() if medium == scales.medium and n])
        shares = counts / counts.sum()
        ratings = [e.rating for e in kept if e.medium == scales.medium and e.status != 0 and e.rating is not None]
        assert scales.targets == counts.sum()
        assert scales.ratings == len(ratings)
        assert scales.watch_entropy == pytest.approx(-(shares * np.log(shares)).sum())
        assert scales.rating_mean == pytest.approx(np.mean(ratings))
        assert scales.rating_variance == pytest.approx(np.var(ratings))
    times = [event.time - manifest.data_schema.time_origin for event in kept]
    assert (manifest.time_min, manifest.time_max) == (min(times), max(times))
    assert manifest.time_last == max(times) + manifest.data_schema.time_origin


@pytest.mark.parametrize(("objective", "policy"), [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")])
def test_validation_asks_each_held_out_user_for_its_validation_target_once(
    built: Path, naive: reference.Dataset, objective: str, policy: str
) -> None:
    """And for no other event; with weight 1. If the event has a rating, that is a target, too."""
    ids = {key: number for number, key in enumerate(naive.items)}
    events = {user: naive.histories[user][place] for user, place in naive.held_out.items()}
    asked: dict[str, dict[int, int]] = {"weight_item": {}, "weight_rating": {}}
    stream = WindowStream(built, objective=objective, mask_policy=policy, batch_windows=4, split="validation")  # type: ignore[arg-type]
    with stream:
        for batch in stream:
            for name, found in asked.items():
                rows = np.nonzero(batch[name])
                assert (batch[name][rows] == 1).all()
                users = batch["user"][rows].tolist()
                assert len(users) == len(set(users) - found.keys())
                found |= dict(zip(users, batch["target_item"][rows].tolist(), strict=True))
    rated = {user for user, event in events.items() if event.rating is not None}
    if policy == "disjoint" and objective == "masked":
        assert not asked["weight_item"].keys() & asked["weight_rating"].keys()
        assert 0.3 * len(rated) < len(asked["weight_rating"]) < 0.7 * len(rated)
        assert asked["weight_rating"].keys() <= rated
    else:
        assert asked["weight_item"].keys() == events.keys()
        assert asked["weight_rating"].keys() == rated
    expected = {user: ids[event.medium, event.item] for user, event in events.items()}
    assert asked["weight_item"] | asked["weight_rating"] == expected


def test_a_window_can_be_looked_at(built: Path) -> None:
    """Each segment has one target, shown at the token that predicts it."""
    rows = look_at_window(built, 0, StreamConfig(objective="causal", batch_windows=1, split="validation"))
    segments = {row["segment"] for row in rows} - {""}
    assert [row["segment"] for row in rows if row["target item"]] == sorted(segments)


@pytest.mark.slow
def test_the_same_bytes_come_from_any_number_of_workers_from_a_stopped_build_and_over_another(
    tmp_path: Path, csv: str, built: Path, small_partitions: None
) -> None:
    """Two workers; a build that was stopped at its first shard of windows and continued; --overwrite; added
    packings."""
    build_shards([csv], tmp_path / "two", workers=2, **OPTIONS)
    steps = build_steps([csv], tmp_path / "stopped", BuildConfig(**OPTIONS))
    for step in steps:
        if getattr(step, "stage", "") == "windows" and getattr(step, "done", 0):
            break
    steps.close()
    assert not (tmp_path / "stopped" / "dataset.json").exists()
    build_shards([csv], tmp_path / "stopped", **OPTIONS)
    build_shards([csv], tmp_path / "over", window_len=32)
    list(build_steps([csv], tmp_path / "over", BuildConfig(**OPTIONS), overwrite=True))
    build_shards([csv], tmp_path / "added", **{**OPTIONS, "packings": 0})
    build_shards([csv], tmp_path / "added", **OPTIONS)
    for name in ("two", "stopped", "over", "added"):
        assert digests(tmp_path / name) == digests(built), name


def test_live_packings_are_those_that_are_built_beforehand(
    tmp_path: Path, csv: str, built: Path, small_partitions: None
) -> None:
    """Byte for byte: live training uses only training events."""
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


def test_where_no_user_has_three_targets_nothing_is_held_out(tmp_path: Path) -> None:
    """No validation window; training has every event."""
    lines = ["user,item,timestamp", *(f"u{u},i{u},{1_400_000_000 + k}" for u in range(5) for k in range(2))]
    (tmp_path / "e.csv").write_text("\n".join(lines) + "\n")
    manifest: Manifest = build_shards([str(tmp_path / "e.csv")], tmp_path / "out", split="last:2", window_len=8)
    assert manifest.users_with_too_few_targets == 5
    assert manifest.splits["validation"].windows == manifest.splits["validation"].users == 0
    assert manifest.splits["training"].events == 10
    stream = WindowStream(tmp_path / "out", objective="causal", batch_windows=2, split="validation")
    assert list(stream) == []
    assert not [found for found in verify_steps(tmp_path / "out") if isinstance(found, Problem)]


@pytest.mark.parametrize("split", ["last:3", "last", "last:2.0", "users:0", "2"])
def test_another_split_is_refused_with_the_two_that_there_are(split: str) -> None:
    """A wrong option never holds out users."""
    with pytest.raises(ValueError, match="split must be last:2, or users:F"):
        BuildConfig(split=split)
