"""Tables in memory as events: their dataset equals that of the same events in a file."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from invented_events import write_csv
from reference_build import Event

import streamfeat
from streamfeat.errors import ConfigError

OPTIONS: dict[str, Any] = {"window_len": 32, "split": "users:0.2", "chunk_windows": 2, "shard_windows": 8}


def pandas_table(path: Path) -> Any:
    return pytest.importorskip("pandas", reason="pip install -e '.[dev]'").read_csv(path)


def polars_table(path: Path) -> Any:
    return pytest.importorskip("polars", reason="pip install -e '.[dev]'").read_csv(path)


def arrow_table(path: Path) -> pa.Table:
    return pyarrow.csv.read_csv(path)


def arrow_reader(path: Path) -> pa.RecordBatchReader:
    """A reader that can be read only once."""
    return arrow_table(path).to_reader(max_chunksize=100)


def bytes_of(root: Path) -> dict[str, str]:
    """The digest of every file, except for the records of how the dataset was built."""
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file() and "receipts" not in path.parts and path.name != "dataset.json"}  # fmt: skip


@pytest.fixture
def no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, which must be empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("table_of", [pandas_table, polars_table, arrow_table, arrow_reader])
def test_a_table_builds_what_its_file_builds(
    table_of: Any, tmp_path: Path, tiny_events: list[Event], no_trace: Path
) -> None:
    """Byte for byte. The same call again is up to date, another table is an error, and no temporary file stays."""
    events = write_csv(tmp_path / "events.csv", tiny_events)
    expected = streamfeat.build(events, tmp_path / "file", **OPTIONS)
    found = streamfeat.build(table_of(events), tmp_path / "table", **OPTIONS)
    assert bytes_of(tmp_path / "table") == bytes_of(tmp_path / "file")
    assert found.manifest.fingerprint == expected.manifest.fingerprint
    before = (tmp_path / "table/dataset.json").read_bytes()
    streamfeat.build(table_of(events), tmp_path / "table", **OPTIONS)
    assert (tmp_path / "table/dataset.json").read_bytes() == before
    shorter = write_csv(tmp_path / "shorter.csv", tiny_events[1:])
    with pytest.raises(ConfigError, match="  tables: their rows are not those that it was made from\n") as refused:
        streamfeat.build(table_of(shorter), tmp_path / "table", **OPTIONS)
    assert ".parquet" not in str(refused.value)  # files that nobody saw
    assert list(no_trace.iterdir()) == []


def test_files_and_tables_together_are_read_in_order(tmp_path: Path, tiny_events: list[Event], no_trace: Path) -> None:
    """Events with equal times keep the order of the given files and tables."""
    first, second = write_csv(tmp_path / "a.csv", tiny_events[:300]), write_csv(tmp_path / "b.csv", tiny_events[300:])
    streamfeat.build([first, second], tmp_path / "files", **OPTIONS)
    streamfeat.build([first, arrow_table(second)], tmp_path / "both", **OPTIONS)
    assert bytes_of(tmp_path / "both") == bytes_of(tmp_path / "files")
    streamfeat.build((path for path in (first, second)), tmp_path / "found", **OPTIONS)  # as `Path.glob` gives them
    assert bytes_of(tmp_path / "found") == bytes_of(tmp_path / "files")
    assert list(no_trace.iterdir()) == []


def test_what_is_no_table_is_named(tmp_path: Path, no_trace: Path) -> None:
    """The message names the table, not a temporary file that the caller does not know."""
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="table: int is neither a path nor a table"):
        streamfeat.build(7, out)
    with pytest.raises(ConfigError, match="out: an empty path"):
        streamfeat.build(7, "")
    with pytest.raises(ConfigError, match=r"table: no column for timestamp; found 'user', 'item', 'when'"):
        streamfeat.build(pa.table({"user": ["a"], "item": ["b"], "when": [1]}), out)
    good = pa.table({"user": ["a"], "item": ["b"], "timestamp": [1_400_000_000]})
    with pytest.raises(ConfigError, match=r"table 1: column 'item' is of type list"):
        streamfeat.build([good, pa.table({"user": ["a"], "item": [["b"]], "timestamp": [1_400_000_000]})], out)
    pandas = pytest.importorskip("pandas", reason="pip install -e '.[dev]'")
    polars = pytest.importorskip("polars", reason="pip install -e '.[dev]'")
    with pytest.raises(ConfigError, match=r"table: LazyFrame is neither .*; give its \.collect\(\)"):
        streamfeat.build(polars.LazyFrame(good), out)
    mixed = pandas.DataFrame({"user": ["a", "b"], "item": ["x", 3], "timestamp": [1_400_000_000, 1_400_000_001]})
    with pytest.raises(ConfigError, match="table: cannot be converted to an Arrow table"):
        streamfeat.build(mixed, out)
    assert list(no_trace.iterdir()) == []
    assert not (out / "dataset.json").exists()


def test_columns_are_named_and_odd_types_read(tmp_path: Path, no_trace: Path) -> None:
    """Categories, times with a zone, missing ratings; columns without a role may be of any type."""
    pandas = pytest.importorskip("pandas", reason="pip install -e '.[dev]'")
    times = pandas.date_range("2020-01-01", periods=60, freq="h", tz="Europe/Berlin")
    frame = pandas.DataFrame({
        "who": pandas.Categorical([f"u{n % 4}" for n in range(60)]), "item": [n % 9 for n in range(60)],
        "seen_at": times, "score": [None if n % 2 else float(n % 5) for n in range(60)],
        "other": [pandas.Period("2020-01")] * 60,
    }).drop(columns="other")  # fmt: skip
    data = streamfeat.build(frame, tmp_path / "data", window_len=16, columns={"user": "who", "timestamp": "seen_at"})
    history = data.history("u1").to_frame()
    assert history.timestamp[0] == times[1]
    assert history.rating.isna().all()
    assert history.item.tolist()[:3] == ["1", "5", "0"]


@pytest.mark.slow
def test_workers_read_a_table(tmp_path: Path, tiny_events: list[Event], no_trace: Path) -> None:
    """Spawned processes find the file. A table and a file are one split each."""
    first, second = write_csv(tmp_path / "a.csv", tiny_events[:300]), write_csv(tmp_path / "b.csv", tiny_events[300:])
    streamfeat.build([first, second], tmp_path / "files", **OPTIONS)
    script = (
        "import sys, pyarrow.csv, streamfeat\n"
        "if __name__ == '__main__':\n"
        "    tables = [pyarrow.csv.read_csv(path) for path in sys.argv[1:3]]\n"
        "    streamfeat.build(tables, sys.argv[3], workers=2, window_len=32, split='users:0.2', chunk_windows=2,\n"
        "                     shard_windows=8)\n"
    )
    (tmp_path / "script.py").write_text(script)
    subprocess.run([sys.executable, tmp_path / "script.py", first, second, tmp_path / "tables"], check=True)
    assert bytes_of(tmp_path / "tables") == bytes_of(tmp_path / "files")
