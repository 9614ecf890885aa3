"""The tables of a dataset: reading their files gives the written values or an error."""

import random
import shutil
from pathlib import Path

import pytest

from streamfeat.errors import DamagedError
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import check_table, read_items, read_user_columns

COLUMNS = ["raw_id", "events", "training_events", "validation_events"]


@pytest.mark.parametrize("name", ["items.parquet", "users.parquet"])
def test_no_flipped_bit_of_a_table_is_read(tmp_path: Path, tiny_dataset: Path, name: str) -> None:
    """At any place: each page has a checksum, and the bytes around the pages do not change the values."""
    sound = (tiny_dataset / name).read_bytes()
    read = read_items if name == "items.parquet" else lambda root: read_user_columns(root, COLUMNS)
    expected = repr(read(tiny_dataset))
    rng, refused = random.Random(name), 0
    for _ in range(300):
        data = bytearray(sound)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(data)
        try:
            assert repr(read(tmp_path)) == expected
        except DamagedError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["items.parquet", "users.parquet"])
def test_another_table_is_told_from_the_one_that_was_built(tmp_path: Path, tiny_dataset: Path, name: str) -> None:
    """A sound table that is not in the manifest, and a missing one."""
    listed = load_manifest(tiny_dataset).digests_of(name)
    assert len(listed) == 1
    check_table(tiny_dataset, name, listed)
    with pytest.raises(DamagedError, match=r"is not as it was built"):
        check_table(tiny_dataset, name, {"0" * 64})
    shutil.copy(tiny_dataset / name, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DamagedError, match=r"is missing"):
        check_table(tmp_path, name, listed)
