"""Event files of folders and globs: parts of one log are read together, all else is refused or counted."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamfeat.builder.coordinator import build_steps
from streamfeat.builder.plan import make_plan
from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.event_paths import expand
from streamfeat.events.user_histories import read_histories
from streamfeat.progress import Note


def part(path: Path, first: int, num: int = 5) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    rows = {"user": ["u"] * num, "item": [f"i{first + i}" for i in range(num)], "timestamp": range(first, first + num)}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(rows), path)
    else:
        lines = [",".join(map(str, row)) for row in zip(*rows.values(), strict=True)]
        path.write_text("\n".join([",".join(rows), *lines]) + "\n")


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_folder_of_parts_is_read_as_its_files_are(tmp_path, suffix):
    """Sorted, also those in folders below; marks of other programs and empty parts are counted."""
    log = tmp_path / "log"
    part(log / f"part-1.{suffix}", 100)
    part(log / f"part-0.{suffix}", 0)
    part(log / f"day=2/part-0.{suffix}", 200)
    for name in ("_SUCCESS", f"._part-0.{suffix}.crc", f"part-2.{suffix}", f"_temporary/part-9.{suffix}"):
        (log / name).parent.mkdir(exist_ok=True)
        (log / name).write_bytes(b"")
    (log / "part-3.csv.gz").write_bytes(gzip.compress(b""))
    found = expand([str(log)])
    assert [str(Path(file).relative_to(log)) for file in found.files] == [
        f"day=2/part-0.{suffix}", f"part-0.{suffix}", f"part-1.{suffix}",
    ]  # fmt: skip
    assert found.note.startswith("left out: 2 empty files (part-2")
    assert "2 marks of other programs" in found.note
    history = read_histories(log, BuildConfig(time_unit="s"), medium="film")
    assert history.time.tolist() == [*range(5), *range(100, 105), *range(200, 205)]
    assert "left out: 2 empty files" in history.recognised


def test_a_glob_leaves_out_marks_and_empty_parts_and_says_so(tmp_path):
    """A file that is given by its name is never left out."""
    part(tmp_path / "part-0.csv", 0)
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "part-1.csv").write_text("")
    part(tmp_path / "_events.csv", 0)
    found = expand([f"{tmp_path}/*"])
    assert [Path(file).name for file in found.files] == ["_events.csv", "part-0.csv"]
    assert found.note == "left out: 1 empty file (part-1.csv) and 1 mark of another program (_SUCCESS)"
    notes = [step.text for step in build_steps([f"{tmp_path}/p*.csv"], tmp_path / "data", BuildConfig(time_unit="s"))
             if isinstance(step, Note)]  # fmt: skip
    assert "left out: 1 empty file (part-1.csv)" in notes
    named = expand([f"{tmp_path}/part-1.csv"])
    assert (len(named.files), named.note) == (1, "")
    with pytest.raises(ConfigError, match="all of its 1 files are empty"):
        expand([f"{tmp_path}/part-1*"])


def test_a_file_whose_dates_are_unclear_is_not_advised_to_be_left_out(tmp_path):
    """It is of events as the one beside it, whose dates are clear."""
    for name, day in (("a", 13), ("b", 2)):
        (tmp_path / f"{name}.csv").write_text(f"user,item,date\nu,i,{day:02d}/03/2020\n")
    with pytest.raises(ConfigError, match=r"b\.csv: .*--time-unit dmy or mdy$"):
        make_plan([str(tmp_path)], tmp_path / "out", BuildConfig())


def test_a_folder_whose_files_are_not_parts_of_one_log_is_refused(tmp_path):
    """Ratings beside tags would be read as one log; a README has no events. The remedy names a file."""
    log = tmp_path / "ml"
    part(log / "ratings.csv", 0)
    (log / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,2,good,1500000000\n")
    with pytest.raises(
        ConfigError, match=r"not parts of one log.*tags\.csv has csv with userId.*: \S+/ml/ratings\.csv$"
    ):
        make_plan([str(log)], tmp_path / "out", BuildConfig(time_unit="s"))
    with pytest.raises(ConfigError, match="not parts of one log"):
        read_histories(log, BuildConfig(time_unit="s"), medium="film")
    (log / "tags.csv").write_text("movieId,title\n1,One\n")
    with pytest.raises(ConfigError, match=r"no column for user.*give files of events alone.*: \S+/ml/ratings\.csv$"):
        make_plan([str(log)], tmp_path / "out", BuildConfig(time_unit="s"))


def test_a_folder_without_events_or_of_a_delta_table_is_refused(tmp_path):
    """Parquet files that a Delta table has removed lie beside the current ones."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="a folder without event files"):
        expand([str(tmp_path / "empty")])
    part(tmp_path / "delta/part-0.parquet", 0)
    (tmp_path / "delta/_delta_log").mkdir()
    with pytest.raises(ConfigError, match=r"a Delta table.*plain Parquet"):
        expand([str(tmp_path / "delta")])


def test_a_value_that_stands_only_in_the_name_of_a_folder_is_not_lost_in_silence(tmp_path):
    """Two media would meet each other's items. The remedies work; a column of the file counts."""
    for medium in ("anime", "manga"):
        part(tmp_path / f"log/medium={medium}/part-0.parquet", 0)
    config = BuildConfig(time_unit="s")
    with pytest.raises(ConfigError, match=r"'medium=anime' names a value of the column.*--constant medium=anime"):
        make_plan([str(tmp_path / "log")], tmp_path / "out", config)
    given = config.model_copy(update={"constant": {"medium": "anime"}})
    history = read_histories(tmp_path / "log/medium=anime", given, medium=None)
    assert {medium for medium, _ in history.items} == {"anime"}
    without = config.model_copy(update={"columns": {"medium": ""}})
    assert len(make_plan([str(tmp_path / "log")], tmp_path / "out", without).sources) == 2
    part(tmp_path / "other/user=7/day=3/part-0.csv", 0)
    assert len(make_plan([str(tmp_path / "other")], tmp_path / "out", config).sources) == 1
