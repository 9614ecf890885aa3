"""Swapped chunks: their own checksums are right."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from stored_arrays import edit_shard, write_dataset

from streamfeat.errors import DamagedError
from streamfeat.store.reader import ArrayReader
from streamfeat.store.verify import Problem, verify_steps

ARRAY = "windows.zarr/training/0/time"
SHARD = f"{ARRAY}/c/1/0"  # windows 8 to 15, chunks 4 to 7


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data")
    return tmp_path / "data"


def swap_entries(file: Path, first: int, second: int) -> None:
    """Exchanges two entries of a shard's index and updates its checksum."""

    def swap(payloads: list[bytes], index: NDArray[np.uint64]) -> None:
        index[[first, second]] = index[[second, first]]

    edit_shard(file, 4, swap)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 3), (1, 2)])
def test_exchanged_entries_of_an_index_are_named_by_verify(dataset: Path, first: int, second: int) -> None:
    """Both chunks, with array and file, and no others."""
    swap_entries(dataset / SHARD, first, second)
    found = [problem for problem in verify_steps(dataset) if isinstance(problem, Problem)]
    assert {(problem.array, problem.file, problem.chunk) for problem in found} == {
        (ARRAY, SHARD, 4 + first), (ARRAY, SHARD, 4 + second)
    }  # fmt: skip
    assert all("another chunk's place" in problem.what for problem in found)


def test_exchanged_entries_of_an_index_are_noticed_by_a_plain_read(dataset: Path) -> None:
    """Before a value of either is used. Other chunks can be read."""
    with ArrayReader(dataset, ARRAY) as reader:
        whole = reader.read_rows(0, reader.shape[0])
    swap_entries(dataset / SHARD, 1, 3)
    with ArrayReader(dataset, ARRAY) as reader:
        out = np.empty((reader.chunk_rows, *reader.shape[1:]), reader.dtype)
        for chunk in (5, 7):
            with pytest.raises(
                DamagedError, match=rf"time, chunk {chunk}, shard file .*{SHARD}.*another chunk's place"
            ):
                reader.read_chunk(chunk, out)
        for chunk in (4, 6):
            reader.read_chunk(chunk, out)
            np.testing.assert_array_equal(out, whole[chunk * len(out) : (chunk + 1) * len(out)])


def test_an_entry_that_repeats_another_is_noticed(dataset: Path) -> None:
    """One chunk twice, and another one missing."""

    def repeat(payloads: list[bytes], index: NDArray[np.uint64]) -> None:
        index[2] = index[1]

    edit_shard(dataset / SHARD, 4, repeat)
    with ArrayReader(dataset, ARRAY) as reader, pytest.raises(DamagedError, match=r"chunk 6.*another chunk's place"):
        reader.read_rows(0, reader.shape[0])
