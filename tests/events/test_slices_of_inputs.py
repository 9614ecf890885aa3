"""Of every file of ../shared/data/inputs, the rows of one user are read as in the whole file, without any option."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_user_histories import built_events, events_of

from streamfeat.builder.coordinator import build_shards
from streamfeat.config import BuildConfig
from streamfeat.errors import StreamfeatError
from streamfeat.events.formats import recognise
from streamfeat.events.reading_again import reading_of
from streamfeat.events.source import Source
from streamfeat.events.user_histories import read_histories

INPUTS = Path(__file__).parents[3] / "shared/data/inputs"
FILES = [
    path for path in sorted(INPUTS.rglob("*")) if path.suffix in (".csv", ".dat", ".inter", ".parquet", ".tsv", ".txt")
]
pytestmark = pytest.mark.skipif(not INPUTS.is_dir(), reason="the input files are not here (../shared/data/inputs)")


def write_slice(source: Source, file: Path, user: str) -> None:
    """The rows of `user`, with the header if there is one."""
    if source.format == "parquet":
        table = pq.read_table(source.path)
        users = [str(value).removesuffix(".0") for value in table[source.columns["user"]].to_pylist()]
        pq.write_table(table.filter(pa.array([each == user for each in users])), file)
        return
    lines = Path(source.path).read_text("utf-8").splitlines()
    first = source.first_line if source.header else 0
    place = source.column_names.index(source.columns["user"])
    rows = []
    for line in lines[first:]:
        row = next(csv.reader([line], delimiter=source.delimiter)) if source.quote else line.split(source.delimiter)
        if len(row) > place and row[place] == user:
            rows.append(line)
    file.write_text("\n".join([*lines[:first], *rows]) + "\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_slice_of_a_file_is_read_as_the_whole(tmp_path: Path, path: Path) -> None:
    """Files that are refused without an option, and lists of one person, have no slices."""
    try:
        source = recognise(str(path), BuildConfig())
        whole = read_histories(path, BuildConfig(), medium="item")
    except StreamfeatError:
        pytest.skip("is refused without an option")
    if source.list_user or "user" not in source.columns:
        pytest.skip("a list of one person")
    user = whole.users[min(3, len(whole.users) - 1)]
    write_slice(source, tmp_path / path.name, user)
    found = read_histories(tmp_path / path.name, BuildConfig(), medium="item", readings=[reading_of(source)])
    assert events_of(found) == {user: events_of(whole)[user]}
    assert found.read_otherwise == []


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dataset_holds_the_histories_of_its_file(tmp_path: Path, path: Path) -> None:
    """So that with the test above a slice gives what the dataset holds."""
    try:
        whole = read_histories(path, BuildConfig(), medium="item")
    except StreamfeatError:
        pytest.skip("is refused without an option")
    manifest = build_shards([str(path)], tmp_path / "data", window_len=32, max_rejected=1.0)
    found = read_histories(path, BuildConfig(), medium="item", readings=manifest.readings)
    assert events_of(found) == events_of(whole)
    assert built_events(tmp_path / "data") == {user: events for user, events in events_of(whole).items() if events}
