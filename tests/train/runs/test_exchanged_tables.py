"""A sound table of another dataset in place of the right one: named by whatever would use it, before it does."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamfeat import BuildConfig, build_steps
from streamfeat.errors import DamagedError
from train.evaluation.evaluate import evaluate_steps
from train.inference.every_user import recommend_all_steps
from train.inference.scorer import Scorer
from train.training.loop import train_steps

GIVEN: dict[str, Any] = {"layers": 1, "width": 8, "heads": 1, "batch_tokens": 128, "steps": 2}
BUILD: dict[str, Any] = {"window_len": 32, "split": "users:0.2", "chunk_windows": 2, "shard_windows": 8}

pytestmark = pytest.mark.usefixtures("one_thread")


def exchange(file: Path, column: str) -> None:
    """Let two rows have each other's value of a column; the file is as large as before, and whole."""
    table, size = pq.read_table(file), file.stat().st_size
    place, values = table.schema.get_field_index(column), table[column].to_pylist()
    for row in range(1, len(values)):
        changed = [values[row], *values[1:row], values[0], *values[row + 1 :]]
        array = pa.array(changed, table.schema.field(column).type)
        pq.write_table(table.set_column(place, table.schema.field(column), array), file, write_page_checksum=True)
        if changed != values and file.stat().st_size == size:
            return
    raise AssertionError("no such pair")


def more_packings(data: Path, run: Path, out: Path) -> Iterator[Any]:
    events = str(data.parent / "events.csv")
    return build_steps([events], data, BuildConfig(**BUILD, packings=3))


USES: dict[str, Callable[[Path, Path, Path], Iterator[Any]]] = {
    "more packings": more_packings,
    "recommend": lambda data, run, out: recommend_all_steps(run, data, out),
    "evaluate": lambda data, run, out: evaluate_steps(run, data),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A dataset with its events beside it, and a run on it."""
    folder = tmp_path_factory.mktemp("sound")
    shutil.copytree(tiny_dataset, folder / "data")
    shutil.copy2(tiny_dataset.parent / "events.csv", folder / "events.csv")
    for _ in train_steps(folder / "data", folder / "run", GIVEN):
        pass
    return folder


@pytest.mark.parametrize("use", USES)
def test_users_of_another_dataset_are_refused(tmp_path: Path, sound: Path, use: str) -> None:
    """They decide windows, names and what is held out; nothing is committed or written of them."""
    shutil.copytree(sound, tmp_path / "copy", copy_function=shutil.copy2)
    data = tmp_path / "copy/data"
    exchange(data / "users.parquet", "raw_id" if use == "recommend" else "training_events")
    with pytest.raises(DamagedError, match=r"users\.parquet: is not as it was built"):
        list(USES[use](data, tmp_path / "copy/run", tmp_path / "out"))
    assert not (data / "windows.zarr/training/2").exists()
    assert not (tmp_path / "out").is_file()


def test_items_of_another_dataset_in_a_run_are_refused(tmp_path: Path, sound: Path) -> None:
    """The run's own copy: recommendations would name other items."""
    shutil.copytree(sound / "run", tmp_path / "run")
    exchange(tmp_path / "run/dataset/items.parquet", "raw_id")
    with pytest.raises(DamagedError, match=r"items\.parquet: is not as it was built.*writes them again"):
        Scorer.of_run(tmp_path / "run")
