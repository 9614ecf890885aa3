"""Each kind of damage stops a stream before a wrong batch is used; `verify` finds damage that a read cannot notice."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited_manifests import edit_manifest
from numpy.typing import NDArray

from streamfeat import WindowStream, load_manifest
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import DamagedError, FormatVersionError
from streamfeat.store.codecs import crc32c
from streamfeat.store.verify import Problem, verify_steps

ARRAY = "windows.zarr/training/0/time"
SHARD = f"{ARRAY}/c/2/0"
OTHER = f"{ARRAY}/c/5/0"


@pytest.fixture
def damageable(dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(dataset, tmp_path / "copy")


def stream_of(dataset: Path, **options: Any) -> WindowStream:
    return WindowStream(dataset, objective="causal", batch_windows=8, seed=3, copy=True, **options)


def write_events(file: Path, num_items: int = 17) -> None:
    rows = (f"u{n % 40},i{n % num_items},{1_400_000_000 + n * 60}" for n in range(2000))
    file.write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")


def edit(file: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)


def flip(root: Path) -> None:
    def change(content: bytearray) -> None:
        content[len(content) // 3] ^= 4

    edit(root / SHARD, change)


def truncate(root: Path) -> None:
    edit(root / SHARD, lambda content: content.__delitem__(slice(-7, None)))


def swap_entries(root: Path) -> None:
    """Swaps chunks 1 and 2 of the shard's four."""
    tail = 4 * 16 + 4

    def change(content: bytearray) -> None:
        index = np.frombuffer(bytes(content[-tail:-4]), "<u8").reshape(4, 2).copy()
        index[[1, 2]] = index[[2, 1]]
        content[-tail:] = index.tobytes() + crc32c(index.reshape(-1).view(np.uint8))

    edit(root / SHARD, change)


def swap_files(root: Path) -> None:
    """Swaps the shard and one of another size, as compressed shards of real windows have."""
    size = (root / SHARD).stat().st_size
    others = (path for path in sorted((root / ARRAY / "c").glob("*/0")) if path.stat().st_size != size)
    exchange(root / SHARD, next(others))


def exchange(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def edit_metadata(root: Path) -> None:
    """Changes the fill value without a change of size: a shape or a scale could be edited like this."""
    file = root / ARRAY / "zarr.json"
    file.write_text(file.read_text().replace('"seconds since', '"minutes sinc ').replace('"num_', '"nun_'))
    edit(file, lambda content: content.__setitem__(content.index(b" "), ord("\t")))


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (flip, SHARD),
    (truncate, SHARD),
    (lambda root: (root / SHARD).unlink(), SHARD),
    (swap_entries, SHARD),
    (swap_files, SHARD),
    (edit_metadata, f"{ARRAY}/zarr.json"),
    (lambda root: shutil.rmtree(root / ARRAY), ARRAY),
]
NAMES = ["flipped bit", "truncated", "missing", "swapped chunks", "swapped shards", "edited metadata", "lost array"]


@pytest.mark.parametrize(("damage", "file"), DAMAGES, ids=NAMES)
def test_no_wrong_batch_is_delivered_and_verify_names_the_damage(
    dataset: Path, damageable: Path, damage: Callable[[Path], object], file: str
) -> None:
    """The stream stops with the file's name; each batch before equals that of the sound dataset."""
    damage(damageable)
    delivered: list[dict[str, NDArray[Any]]] = []
    with pytest.raises(DamagedError, match=file):
        delivered.extend(stream_of(damageable))
    for got, expected in zip(delivered, stream_of(dataset), strict=False):
        for name, values in expected.items():
            np.testing.assert_array_equal(got[name], values)
    found = [problem for problem in verify_steps(damageable) if isinstance(problem, Problem)]
    assert file in {problem.file for problem in found} | {problem.array for problem in found}
    assert {problem.array for problem in found} <= {ARRAY, ""}


@pytest.mark.parametrize("damage", [truncate, swap_files, edit_metadata, lambda root: (root / OTHER).unlink()])
def test_what_sizes_tell_is_known_before_the_first_batch(damageable: Path, damage: Callable[[Path], object]) -> None:
    """Files of the packing are compared with their receipts when it is opened."""
    damage(damageable)
    stream = stream_of(damageable)
    with pytest.raises(
        DamagedError, match=r"`verify` lists all damage, `verify --repair` writes damaged windows again"
    ):
        next(iter(stream))
    assert stream.position == 0


def test_sizes_of_another_packing_or_split_wait_until_it_is_read(damageable: Path) -> None:
    """Packing 1 is damaged: epoch 0 is sound, epoch 1 does not begin."""
    (damageable / SHARD.replace("/0/", "/1/", 1)).unlink()
    stream = stream_of(damageable)
    num_batches = len(list(stream))
    assert num_batches == stream.steps_per_epoch
    with pytest.raises(DamagedError, match="training/1/time/c/2/0 is missing"):
        next(iter(stream))
    assert list(stream_of(damageable, split="validation"))


def test_shards_of_equal_size_in_each_others_place_are_noticed(tmp_path: Path) -> None:
    """Every checksum inside them and every size is right: the `crc32c` in the receipt shows it."""
    root = tmp_path / "data"
    write_events(tmp_path / "e.csv")
    build_shards([str(tmp_path / "e.csv")], root, window_len=16, chunk_windows=2, shard_windows=8, compression="none")
    undisturbed = list(stream_of(root))
    exchange(root / SHARD, root / OTHER)
    delivered = []
    with pytest.raises(DamagedError, match=r"array .*time, chunk \d+, shard file .*: the shard's chunks are not the"):
        delivered.extend(stream_of(root))
    for mine, theirs in zip(delivered, undisturbed, strict=False):
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    found = [problem for problem in verify_steps(root) if isinstance(problem, Problem)]
    assert {problem.file for problem in found} == {SHARD, OTHER}
    assert all("holds the content of" in problem.what for problem in found)


def test_chunks_of_equal_size_in_each_others_place_are_noticed(tmp_path: Path) -> None:
    """Inside one shard, without a change of the index; uncompressed chunks all have the same size."""
    root = tmp_path / "data"
    write_events(tmp_path / "e.csv")
    build_shards([str(tmp_path / "e.csv")], root, window_len=16, chunk_windows=2, shard_windows=8, compression="none")

    def change(content: bytearray) -> None:
        size = (len(content) - 4 * 16 - 4) // 4
        content[: 2 * size] = content[size : 2 * size] + content[:size]

    edit(root / SHARD, change)
    with pytest.raises(DamagedError, match=r"the shard's chunks are not the committed ones"):
        list(stream_of(root))
    assert {problem.file for problem in verify_steps(root) if isinstance(problem, Problem)} == {SHARD}


def test_histories_of_another_dataset_make_no_windows(tmp_path: Path) -> None:
    """More packings, repair and live training read them. The other file is sound and has the same size."""
    options = {"window_len": 16, "chunk_windows": 2, "shard_windows": 8, "compression": "none"}
    for name, num_items in (("one", 17), ("other", 16)):
        write_events(tmp_path / f"{name}.csv", num_items)
        build_shards([str(tmp_path / f"{name}.csv")], tmp_path / name, **options)
    shard = "histories.zarr/item/c/0"
    assert (tmp_path / "one" / shard).stat().st_size == (tmp_path / "other" / shard).stat().st_size
    shutil.copy(tmp_path / "other" / shard, tmp_path / "one" / shard)
    # Workers of their own have read nothing before.
    with pytest.raises(DamagedError, match=r"histories\.zarr/item, chunk 0.*: the shard's chunks are not the"):
        build_shards([str(tmp_path / "one.csv")], tmp_path / "one", **options, packings=2, workers=2)


def test_an_edited_manifest_and_a_newer_format_are_refused_at_opening(damageable: Path) -> None:
    """Before any array is opened."""
    manifest = damageable / "dataset.json"
    text = manifest.read_text("utf-8")
    manifest.write_text(text.replace('"time_max": ', '"time_max": 1', 1), "utf-8")
    with pytest.raises(DamagedError, match="its checksum does not match"):
        stream_of(damageable)
    manifest.write_text(text, "utf-8")
    edit_manifest(damageable, lambda values: values.update(format_version=99))
    with pytest.raises(FormatVersionError, match="format 99"):
        stream_of(damageable)


def test_a_foreign_file_harms_no_stream(damageable: Path) -> None:
    """Streams do not list folders, so the file is not read; `verify` reports it."""
    (damageable / f"{ARRAY}/c/99").mkdir()
    (damageable / f"{ARRAY}/c/99/0").write_bytes(b"x")
    assert len(list(stream_of(damageable))) == stream_of(damageable).steps_per_epoch
    assert {problem.kind for problem in verify_steps(damageable) if isinstance(problem, Problem)} == {"foreign"}
    assert load_manifest(damageable).splits["training"].windows
