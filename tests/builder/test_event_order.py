"""The order of events and their duplicates are judged at the resolution of the file; whole seconds are stored."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamfeat.builder.coordinator import build_shards
from streamfeat.builder.partition_task import run_partition
from streamfeat.builder.split_task import run_split
from streamfeat.builder.tasks import PartitionTask, SplitTask
from streamfeat.builder.vocabulary import merge_items
from streamfeat.config import BuildConfig
from streamfeat.events.formats import recognise
from streamfeat.events.splits import plan_splits
from streamfeat.events.user_histories import read_histories
from streamfeat.store.array_files import map_arrays, texts_of
from streamfeat.store.histories import HistoryReader
from streamfeat.store.manifest import load_manifest

START = 1_500_000_000  # Unix seconds
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def iso(ns: int, digits: int) -> str:
    text = datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns % 10**9 // 10 ** (9 - digits):0{digits}d}Z" if digits else text + "Z"


def write_events(folder: Path, form: str, rows: list[tuple[str, str, int]]) -> str:
    """Rows of user, item and nanoseconds since 1970 in an event file. `form` is the kind of file and of times."""
    kind, _, unit = form.partition(" ")
    digits = DIGITS[unit]
    users, items, moments = zip(*rows, strict=True)
    ticks = [ns // 10 ** (9 - digits) for ns in moments]
    times: Any = {
        "integers": lambda: pa.array(ticks, pa.int64()),
        "timestamps": lambda: pa.array(ticks, pa.timestamp(unit)),
        "floats": lambda: pa.array([tick / 10**digits for tick in ticks], pa.float64()),
        "texts": lambda: pa.array([iso(ns, digits) for ns in moments]),
    }
    if kind in times:
        path = folder / "events.parquet"
        pq.write_table(pa.table({"user": users, "item": items, "timestamp": times[kind]()}), path, version="2.6")
        return str(path)
    written = {
        "ticks": lambda ns: str(ns // 10 ** (9 - digits)),
        "decimals": lambda ns: f"{ns // 10**9}.{ns % 10**9:09d}"[: 11 + digits],
        "iso": lambda ns: iso(ns, digits),
    }[kind]
    path = folder / "events.csv"
    path.write_text("user,item,timestamp\n" + "".join(f"{u},{i},{written(ns)}\n" for u, i, ns in rows))
    return str(path)


FORMS = [
    *(f"{kind} {unit}" for kind in ("ticks", "integers", "timestamps", "iso") for unit in DIGITS),
    "decimals ms", "decimals us", "decimals ns", "floats s", "floats ms", "floats us", "texts ms", "texts ns",
]  # fmt: skip


def asked_histories(path: str) -> dict[str, list[tuple[str, int]]]:
    """User → (item, second) of its events, read as `recommend` reads them."""
    found = read_histories(path, BuildConfig(), medium="item")
    events = [(found.items[item][1], time) for item, time in zip(found.item, found.time.tolist(), strict=True)]
    return {user: events[slice(*found.offsets[u : u + 2])] for u, user in enumerate(found.users)}


def built_histories(path: str, root: Path, rows_per_split: int) -> dict[str, list[tuple[str, int]]]:
    """The same, read as `build-shards` reads them, in splits of few rows."""
    (root / "receipts").mkdir()
    (root / "tmp").mkdir()
    splits = plan_splits([recognise(path, BuildConfig())], rows_per_split)
    read = [run_split(root, SplitTask(split=s, config=BuildConfig(), num_partitions=1, digest="d")) for s in splits]
    merge_items(root, read)
    task = PartitionTask(partition=0, num_splits=len(splits), digest="d")
    run_partition(root, task)
    arrays = map_arrays(root, task.facts_file)
    items = texts_of(map_arrays(root, "tmp/items.arrays"), "raw_id").to_pylist()
    events = [(items[item], time) for item, time in zip(arrays["item"], arrays["time"].tolist(), strict=True)]
    users = texts_of(arrays, "raw_id").to_pylist()
    return {user: events[slice(*arrays["offsets"][u : u + 2])] for u, user in enumerate(users)}


# Moments lie within a few seconds, so that many differ only in their fraction.
MOMENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3 * 10**9)), min_size=1, max_size=24)


@settings(max_examples=40)
@given(form=st.sampled_from(FORMS), moments=MOMENTS, rows_per_split=st.integers(5, 40), data=st.data())
@example(form="iso ms", moments=[("a", 150_000_000 * i) for i in range(20)], rows_per_split=7, data=None)
@example(form="ticks ns", moments=[("a", 2 - i) for i in range(3)], rows_per_split=40, data=None)
def test_permuting_rows_whose_times_differ_changes_no_history(
    form: str, moments: list[tuple[str, int]], rows_per_split: int, data: Any
) -> None:
    """In a build and in a history that is asked: in the order of time at the file's resolution, seconds floored."""
    step = 10 ** (9 - DIGITS[form.partition(" ")[2]])
    distinct = sorted({(user, ns // step * step) for user, ns in moments})
    rows = [(user, f"i{number % 5}", START * 10**9 + ns) for number, (user, ns) in enumerate(distinct)]
    given_rows = rows[::-1] if data is None else data.draw(st.permutations(rows))
    expected: dict[str, list[tuple[str, int]]] = {}
    for user, item, ns in rows:
        expected.setdefault(user, []).append((item, ns // 10**9))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_events(folder, form, given_rows)
        assert asked_histories(path) == expected
        assert built_histories(path, folder, rows_per_split) == expected


@pytest.mark.parametrize("form", ["ticks ms", "decimals ms", "iso ms", "timestamps us"])
def test_events_of_one_item_that_differ_by_a_fraction_are_no_duplicates(tmp_path: Path, form: str) -> None:
    """Plays 400 ms apart are two events; the same moment again is a duplicate. A whole build stores whole seconds."""
    rows = [("u", "i", START * 10**9 + ms * 10**6) for ms in (400, 0, 0, 1400)]
    build_shards([write_events(tmp_path, form, rows)], tmp_path / "data", window_len=8)
    manifest = load_manifest(tmp_path / "data")
    assert manifest.cleaning["duplicates"] == 1
    with HistoryReader(tmp_path / "data", manifest) as reader:
        times = reader.read(0, 1).time + manifest.data_schema.time_origin
    assert times.tolist() == [START, START, START + 1]
    assert asked_histories(write_events(tmp_path, form, rows)) == {"u": [("i", time) for time in times.tolist()]}


def test_files_of_other_resolutions_are_one_input(tmp_path: Path) -> None:
    """Whole seconds are the beginnings of their seconds."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    files = [
        write_events(first, "ticks ms", [("u", f"late{ms}", START * 10**9 + ms * 10**6) for ms in (900, 100)]),
        write_events(second, "ticks s", [("u", "early", START * 10**9)]),
    ]
    build_shards(files, tmp_path / "data", window_len=8)
    manifest = load_manifest(tmp_path / "data")
    names = pq.read_table(tmp_path / "data" / "items.parquet")["raw_id"].to_pylist()
    with HistoryReader(tmp_path / "data", manifest) as reader:
        stored = reader.read(0, 1)
    assert [names[item] for item in stored.item] == ["early", "late100", "late900"]


def test_a_file_of_whole_seconds_has_no_fractions(tmp_path: Path) -> None:
    """Neither in its batches nor in its spill file, so that it costs nothing."""
    for form in ("ticks s", "iso s", "timestamps ns", "ticks us", "floats s"):
        path = write_events(tmp_path, form, [("u", "i", START * 10**9), ("u", "j", (START + 1) * 10**9)])
        root = tmp_path / form
        root.mkdir()
        built_histories(path, root, 100)
        assert "fraction" not in map_arrays(root, "tmp/split-00000.spill.0")
        assert np.array_equal(map_arrays(root, "tmp/split-00000.spill.0")["time"], [START, START + 1])
