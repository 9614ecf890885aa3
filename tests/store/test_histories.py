"""Histories are read as they were written, for any range of users."""

from pathlib import Path

import numpy as np
import pytest
import reference_build as reference

from streamfeat.errors import DamagedError
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.manifest import load_manifest

SEED = 20221221


@pytest.fixture(scope="module")
def naive(tiny_events: list[reference.Event]) -> reference.Dataset:
    return reference.build(tiny_events, seed=SEED, num_partitions=1, share=0.2)


@pytest.mark.parametrize(("first", "last"), [(0, 50), (0, 0), (50, 50), (7, 8), (12, 41)])
def test_any_run_of_users_has_their_events_decoded(
    tiny_dataset: Path, naive: reference.Dataset, first: int, last: int
) -> None:
    """Dense ids, seconds since time_origin, ratings as given or NaN; the dtypes of the docstring."""
    manifest = load_manifest(tiny_dataset)
    with HistoryReader(tiny_dataset, manifest) as reader:
        found = reader.read(first, last)
    wanted = naive.histories[first:last]
    flat = [event for history in wanted for event in history]
    ids = {key: number for number, key in enumerate(naive.items)}
    np.testing.assert_array_equal(found.offsets, np.cumsum([0, *map(len, wanted)]))
    assert found.item.tolist() == [ids[e.medium, e.item] for e in flat]
    assert found.time.tolist() == [e.time - manifest.data_schema.time_origin for e in flat]
    ratings = [np.nan if e.rating is None else e.rating for e in flat]
    np.testing.assert_array_equal(found.rating, np.array(ratings, np.float32))
    assert found.status.tolist() == [e.status for e in flat]
    np.testing.assert_array_equal(found.completion, np.array([e.completion for e in flat], np.float32))
    dtypes = {name: values.dtype.name for name, values in vars(found).items()}
    assert dtypes == {
        "offsets": "int64", "item": "int64", "time": "int64", "rating": "float32", "status": "uint8",
        "completion": "float32",
    }  # fmt: skip


def test_users_that_are_not_there_are_refused(tiny_dataset: Path) -> None:
    """The events of other users are never returned instead."""
    with HistoryReader(tiny_dataset, load_manifest(tiny_dataset)) as reader:
        for first, last in ((-1, 3), (4, 3), (0, 51)):
            with pytest.raises(IndexError, match="of 50"):
                reader.read(first, last)


def test_under_users_f_each_history_is_wholly_in_one_split(tiny_dataset: Path, naive: reference.Dataset) -> None:
    """(n, 0) or (0, n). Reading some users gives the same as that part of all."""
    held_out = read_held_out(tiny_dataset)
    for split in ("training", "validation"):
        expected = [naive.events_of(user, split) for user in range(50)]
        assert held_out.events_of(split).tolist() == expected
        assert read_held_out(tiny_dataset, 11, 31).events_of(split).tolist() == expected[11:31]
    assert (held_out.training_events > 0).sum() == 40


def test_a_damaged_user_table_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    """Truncated, or missing."""
    table = (tiny_dataset / "users.parquet").read_bytes()
    for content in (table[: len(table) // 2], None):
        if content is None:
            (tmp_path / "users.parquet").unlink()
        else:
            (tmp_path / "users.parquet").write_bytes(content)
        with pytest.raises(DamagedError, match=r"users\.parquet: cannot be read"):
            read_held_out(tmp_path)
