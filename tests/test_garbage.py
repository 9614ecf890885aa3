"""For any bytes in a file, reading it gives its content or an error that a user can fix, and nothing else."""

import contextlib
import copy
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train_config_file import read_config

from streamfeat.config import BuildConfig
from streamfeat.errors import StreamfeatError
from streamfeat.events.event_reader import read_batches
from streamfeat.events.formats import recognise
from streamfeat.events.item_lists import read_item_list
from streamfeat.events.splits import plan_splits
from streamfeat.events.titles import read_titles
from streamfeat.events.user_histories import read_histories
from streamfeat.live.folder import read_run
from streamfeat.store.manifest import load_manifest, manifest_checksum
from streamfeat.store.metadata import parse_array
from streamfeat.store.tables import read_items, read_user_columns
from streamfeat.store.writer import read_receipt
from train.runs.checkpoint import read_checkpoint
from train.runs.metrics import read_metrics
from train.runs.record import read_record
from train.training.loop import train_steps

FEW = settings(max_examples=30, suppress_health_check=list(HealthCheck))
EXAMPLES = [4, pytest.param(120, marks=pytest.mark.slow)]  # of what takes DuckDB a tenth of a second

# What parsers are known to stumble over, beside what chance finds.
NASTY = (
    b"", b"\n", b"\0" * 300, b"\xff\xfe{\0}\0", b"[]", b"null", b"{}", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"format_version": ' + b"9" * 5000 + b"}", b'{"format_version": 1e999}', b'{"format_version": "\\ud800"}',
    b'{"format_version": NaN}', b'{"format_version": true}', b"a=" + b"[" * 100_000, b"seed=" + b"9" * 5000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, -(2**63), 10**30, 1e308, -0.5, "", "\ud800", "../../x", "/etc/passwd", "\x1b[31m",
    [], {}, [[]], {"a": 1}, "9" * 400,
)  # fmt: skip


@contextlib.contextmanager
def only_fixable() -> Iterator[None]:
    """Errors with a remedy are allowed; any other error fails the test."""
    with contextlib.suppress(StreamfeatError):
        yield


@st.composite
def mutated(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with a few bytes flipped, removed, inserted or doubled; or truncated; or completely different."""
    kind = draw(st.sampled_from(["edit", "edit", "edit", "cut", "nasty", "any"]))
    if kind == "nasty":
        return draw(st.sampled_from(NASTY))
    if kind == "any":
        return draw(st.binary(max_size=400))
    if kind == "cut":
        return sound[: draw(st.integers(0, len(sound)))]
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 9))
        data[place : place + length] = draw(st.one_of(st.binary(max_size=9), st.just(data[place : place + length] * 2)))
    return bytes(data)


@st.composite
def edited(draw: st.DrawFn, sound: bytes) -> dict[str, Any]:
    """The JSON object `sound` with one or two of its values, however deep, replaced or gone."""
    document: Any = json.loads(sound)
    for _ in range(draw(st.integers(1, 2))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
                place = place[key]
                continue
            if isinstance(place, dict) and draw(st.integers(0, 4)) == 0:
                del place[key]
            else:
                place[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            break
    assert isinstance(document, dict)
    return document


def text_of(document: Any) -> bytes:
    return json.dumps(document).encode()


CSV = b"user,item,medium,timestamp,rating,status\n" + b"".join(
    b"u%d,i%d,anime,%d,%d,completed\n" % (i % 5, i % 7, 1_300_000_000 + 86_400 * i, i % 10) for i in range(40)
)
DAT = b"".join(b"%d::%d::%d::%d\n" % (i % 5, i % 7, i % 5, 978_300_760 + i) for i in range(40))
U_DATA = b"".join(b"%d\t%d\t%d\t%d\n" % (1 + i % 5, 1 + i % 7, 1 + i % 5, 881_250_949 + i) for i in range(40))
RECBOLE = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + b"".join(
    b"%d\t%d\t%d\t%d.0\n" % (i % 5, i % 7, i % 5, 978_300_760 + i) for i in range(40)
)
QUOTED = b'user;item;date;title\n"a;1";x;2020-01-02T03:04:05Z;"one ""two"""\nb;y;2020-01-02;\xc3\xa4\n' * 9


def parquet() -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"user": ["a", "b", "c"] * 30, "item": list(range(90)), "medium": ["x", "y", None] * 30,
                      "timestamp": pa.array(range(90), pa.timestamp("ms"))})  # fmt: skip
    pq.write_table(table, buffer, row_group_size=40)
    return buffer.getvalue()


REVIEWS = b"user,review,item,timestamp\n" + b'u,"one\n""two"", three\r\n",i,1500000000\nv,four,j,1500000001\n' * 9
OBJECTS = [{"user": {"id": i % 5}, "item": f"i{i}", "time": 1_500_000_000 + i, "text": 'a "b" }]\n'} for i in range(30)]
JSON_LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS).encode()


SOUND = {"a.csv": CSV, "ratings.dat": DAT, "a.inter": RECBOLE, "q.csv": QUOTED, "a.csv.gz": gzip.compress(CSV),
         "a.parquet": parquet(), "reviews.csv": REVIEWS, "a.json": json.dumps(OBJECTS, indent=1).encode(),
         "a.jsonl": JSON_LINES, "a.txt": QUOTED.decode().encode("utf-16")}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A run of two steps."""
    path = tmp_path_factory.mktemp("garbage") / "run"
    for _ in train_steps(tiny_dataset, path, {"layers": 1, "width": 8, "heads": 1, "batch_tokens": 64, "steps": 2}):
        pass
    return path


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", SOUND)
def test_any_event_file_is_read_or_refused(tmp_path: Path, name: str, examples: int) -> None:
    """Recognised, planned and read whole; also as a history and as a list of items."""
    path = tmp_path / name

    @settings(FEW, max_examples=examples)
    @given(mutated(SOUND[name]))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        with only_fixable():
            source = recognise(str(path), BuildConfig())
            for split in plan_splits([source]):
                assert sum(batch.num_rows for batch in read_batches(split, tmp_path, "item")) == split.num_rows
            read_titles(source)
        with only_fixable():
            read_histories(path, BuildConfig(), medium="item")
        with only_fixable():
            read_item_list(path, ["anime"])

    check()


@pytest.mark.parametrize(
    "name", ["u.data/u.item", "ratings.dat/movies.dat", "ratings.csv/movies.csv", "a.inter/a.item"]
)
def test_any_file_of_titles_is_read_or_refused(tmp_path: Path, name: str) -> None:
    """It is read because it is next to the events."""
    events, titles = name.split("/")
    rows = {"u.data": U_DATA, "ratings.dat": DAT, "a.inter": RECBOLE,
            "ratings.csv": b"userId,movieId,rating,timestamp\n" + DAT.replace(b"::", b",")}  # fmt: skip
    (tmp_path / events).write_bytes(rows[events])
    source = recognise(str(tmp_path / events), BuildConfig())

    @FEW
    @given(mutated(b'1|Caf\xe9|x\n2::"One::y\n3,"Two"",z\n4\titem_id:token\n' + b'"' + b"x" * 200_000))
    def check(data: bytes) -> None:
        (tmp_path / titles).write_bytes(data)
        with only_fixable():
            assert isinstance(read_titles(source), dict)

    check()


def _check_documents(tmp_path: Path, sound: bytes, name: str, read: Callable[[], Any]) -> None:
    """Calls `read` for the file `name`: with mutated bytes, then with JSON of other values."""

    @FEW
    @given(st.one_of(mutated(sound), edited(sound).map(text_of)))
    def check(data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        with only_fixable():
            read()

    check()


READERS: dict[str, Callable[[Path], Any]] = {
    "dataset.json": load_manifest,
    "config.json": read_record,
    "metrics.jsonl": read_metrics,
    "items.parquet": read_items,
    "train.toml": lambda folder: read_config(folder / "train.toml"),
    "zarr.json": lambda folder: parse_array((folder / "zarr.json").read_bytes(), "item", "zarr.json"),
    "receipts/x.json": lambda folder: read_receipt(folder, "x"),
    "run.json": read_run,
}


@pytest.mark.parametrize("name", READERS)
def test_what_parsers_stumble_over_is_refused_in_every_file(tmp_path: Path, name: str) -> None:
    """Known difficult inputs, in addition to random ones."""
    (tmp_path / "receipts").mkdir()
    for data in NASTY:
        (tmp_path / name).write_bytes(data)
        with only_fixable():
            READERS[name](tmp_path)


def test_any_manifest_is_read_or_refused(tmp_path: Path, tiny_dataset: Path) -> None:
    """Also with a right checksum, because a forged manifest can have one."""
    sound = (tiny_dataset / "dataset.json").read_bytes()
    _check_documents(tmp_path, sound, "dataset.json", lambda: load_manifest(tmp_path))

    @FEW
    @given(edited(sound))
    def check(document: dict[str, Any]) -> None:
        document.pop("checksum", None)
        with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair has no checksum
            (tmp_path / "dataset.json").write_bytes(text_of({**document, "checksum": manifest_checksum(document)}))
        with only_fixable():
            load_manifest(tmp_path)

    check()


def test_any_receipt_is_read_or_counts_for_nothing(tmp_path: Path, tiny_dataset: Path) -> None:
    """Then its task is done again."""
    name = "window-training-00000-00000"
    sound = (tiny_dataset / f"receipts/{name}.json").read_bytes()
    (tmp_path / "receipts").mkdir()
    _check_documents(tmp_path, sound, f"receipts/{name}.json", lambda: read_receipt(tmp_path, name))


def test_any_record_of_a_live_run_is_read_or_refused(tmp_path: Path) -> None:
    """run.json, which a trainer wrote and producers read."""
    sound = text_of({"run_id": "20260101t000000.000000-00000000", "fingerprint": "f", "seed": 1, "batch_windows": 2,
                     "world_size": 1, "start": 0, "stop": 9, "disk_bytes": 10**9, "timeout_s": 600, "host": "h",
                     "pid": 1, "started": "2026-01-01"})  # fmt: skip
    _check_documents(tmp_path, sound, "run.json", lambda: read_run(tmp_path))


def test_any_zarr_json_is_read_or_refused(tmp_path: Path, tiny_dataset: Path) -> None:
    """Shapes, codecs and keys come from anywhere."""
    sound = (tiny_dataset / "windows.zarr/training/0/item/zarr.json").read_bytes()
    file = tmp_path / "zarr.json"
    _check_documents(tmp_path, sound, file.name, lambda: parse_array(file.read_bytes(), "item", "zarr.json"))


def test_any_table_is_read_or_refused(tmp_path: Path, tiny_dataset: Path) -> None:
    """items.parquet and users.parquet, which contain no checksum of the whole file."""

    @FEW
    @given(*(mutated((tiny_dataset / name).read_bytes()) for name in ("items.parquet", "users.parquet")))
    def check(items: bytes, users: bytes) -> None:
        (tmp_path / "items.parquet").write_bytes(items)
        (tmp_path / "users.parquet").write_bytes(users)
        with only_fixable():
            read_items(tmp_path)
        with only_fixable():
            read_user_columns(tmp_path, ["raw_id", "training_events"])

    check()


def test_any_run_folder_is_read_or_refused(tmp_path: Path, run: Path) -> None:
    """config.json and metrics.jsonl."""
    _check_documents(tmp_path, (run / "config.json").read_bytes(), "config.json", lambda: read_record(tmp_path))

    @FEW
    @given(mutated((run / "metrics.jsonl").read_bytes()))
    def check(data: bytes) -> None:
        (tmp_path / "metrics.jsonl").write_bytes(data)
        with only_fixable():
            read_metrics(tmp_path)

    check()


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "model.safetensors", "optimizer.safetensors"])
def test_any_checkpoint_is_read_or_refused(tmp_path: Path, run: Path, name: str) -> None:
    """Its manifest is updated, so that the other parsers read the files."""
    found = run / "checkpoints/step-00000002"
    content = {
        file: (found / file).read_bytes() for file in ("state.json", "model.safetensors", "optimizer.safetensors")
    }
    sound = (found / name).read_bytes()
    changed = mutated(sound) if name.endswith("tensors") else st.one_of(mutated(sound), edited(sound).map(text_of))

    @FEW
    @given(changed)
    def check(data: bytes) -> None:
        files = content | {name: data}
        for file, held in files.items():
            (tmp_path / file).write_bytes(held)
        if name != "manifest.json":
            records = [{"path": file, "size": len(held), "sha256": hashlib.sha256(held).hexdigest()}
                       for file, held in files.items()]  # fmt: skip
            (tmp_path / "manifest.json").write_bytes(text_of({"files": records}))
        with only_fixable():
            read_checkpoint(tmp_path)

    check()


def test_any_toml_is_read_or_refused(tmp_path: Path) -> None:
    """The file of `train --config`."""
    path = tmp_path / "train.toml"
    sound = b"steps = 7\nlearning_rate = 1e-3\nmonitor = 'loss'\nlive = true\n[model]\nwidth = 64\nheads = 2\n"

    @FEW
    @given(mutated(sound))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        with only_fixable():
            read_config(path)

    check()
