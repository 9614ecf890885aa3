"""The direct reader agrees with zarr-python on sound stores, and always raises an error on damaged ones."""

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_arrays import COMPRESSIONS, array_spec, edit_shard, flip, truncate, values_of, write_array

from streamfeat.config import Compression
from streamfeat.errors import DamagedError
from streamfeat.store import reader as reader_module
from streamfeat.store.codecs import ABSENT, ChunkError, decompress, encode_chunk
from streamfeat.store.layout import ArraySpec, create_arrays
from streamfeat.store.reader import ArrayReader

SHAPES = [((), 1), ((), 23), ((), 24), ((5,), 1), ((5,), 23), ((5,), 24), ((1,), 7)]


def read_all(array: Path) -> np.ndarray[Any, Any]:
    with ArrayReader(array.parent, array.name) as reader:
        return reader.read_rows(0, reader.shape[0])


def read_chunks(array: Path) -> np.ndarray[Any, Any]:
    """The array, chunk by chunk."""
    with ArrayReader(array.parent, array.name) as reader:
        out = np.empty(reader.shape, reader.dtype)
        for chunk in range(reader.num_chunks):
            reader.read_chunk(chunk, out[chunk * reader.chunk_rows : (chunk + 1) * reader.chunk_rows])
        return out


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64", "float32"])
@pytest.mark.parametrize(("row_shape", "num_rows"), SHAPES)
def test_zarr_python_reads_what_the_writer_wrote(
    tmp_path: Path, compression: Compression, dtype: str, row_shape: tuple[int, ...], num_rows: int
) -> None:
    """Shards of `write_shard` are Zarr v3: zarr-python and the direct reader return the written values."""
    spec = array_spec(num_rows, row_shape, dtype, compression=compression)
    values = values_of(spec)
    write_array(tmp_path, "group", spec, values)
    array = tmp_path / "group" / "item"
    np.testing.assert_array_equal(zarr.open_array(str(array), mode="r")[...], values)
    np.testing.assert_array_equal(read_all(array), values)
    np.testing.assert_array_equal(read_chunks(array), values)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("row_shape", "num_rows"), SHAPES)
def test_the_reader_reads_what_zarr_python_wrote(
    tmp_path: Path, compression: Compression, row_shape: tuple[int, ...], num_rows: int
) -> None:
    """The reader follows the format, not our writer: shards of zarr-python are read, too."""
    spec = array_spec(num_rows, row_shape, "uint32", compression=compression)
    values = values_of(spec)
    create_arrays(tmp_path / "group", [spec])
    array = tmp_path / "group" / "item"
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(str(array), mode="r+")[...] = values
    np.testing.assert_array_equal(read_all(array), values)
    np.testing.assert_array_equal(read_chunks(array), values)


@settings(max_examples=60)
@given(data=st.data())
def test_any_cut_of_any_array_reads_as_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """For any rows, chunks, shards and codec, `read_rows(a, b)` is `values[a:b]`, as in zarr-python."""
    chunk_rows = data.draw(st.integers(1, 6))
    spec = array_spec(
        data.draw(st.integers(0, 40)),
        data.draw(st.sampled_from([(), (3,)])),
        data.draw(st.sampled_from(["uint8", "int64", "float32"])),
        chunk_rows=chunk_rows,
        shard_rows=chunk_rows * data.draw(st.integers(1, 4)),
        compression=data.draw(st.sampled_from(COMPRESSIONS)),
    )
    values = values_of(spec, data.draw(st.integers(0, 99)))
    root = tmp_path_factory.mktemp("cut")
    write_array(root, "group", spec, values)
    stored = zarr.open_array(str(root / "group" / "item"), mode="r")
    with ArrayReader(root, "group/item") as reader:
        for _ in range(4):
            start = data.draw(st.integers(0, spec.num_rows))
            stop = data.draw(st.integers(start, spec.num_rows))
            found = reader.read_rows(start, stop)
            assert found.dtype == spec.dtype
            np.testing.assert_array_equal(found, values[start:stop])
            np.testing.assert_array_equal(found, stored[start:stop])


@pytest.fixture(params=COMPRESSIONS)
def small(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path, ArraySpec]:
    """(array, its first shard file, second shard file, spec) of two shards of two chunks each."""
    spec = array_spec(16, (3,), compression=request.param)
    write_array(tmp_path, "group", spec, values_of(spec))
    array = tmp_path / "group" / "item"
    return array, array / "c" / "0" / "0", array / "c" / "1" / "0", spec


Small = tuple[Path, Path, Path, ArraySpec]


@pytest.mark.parametrize("mask", [0xFF, 0x01])
def test_no_flipped_byte_is_silent(small: Small, mask: int) -> None:
    """A checksum covers every byte of a shard file: after any flip, reading the array raises an error."""
    array, shard, *_ = small
    sound = shard.read_bytes()
    for at in range(len(sound)):
        flip(shard, at, mask)
        with pytest.raises(DamagedError):
            read_all(array)
        shard.write_bytes(sound)


def test_a_flipped_byte_is_named_by_array_chunk_and_shard_file(small: Small) -> None:
    """The error has array, chunk number and shard file, and mentions `verify`."""
    array, _, shard, _ = small
    flip(shard, 0)
    with pytest.raises(DamagedError) as caught:
        read_all(array)
    message = str(caught.value)
    assert f"array {array}, chunk 2, shard file {shard}" in message
    assert "verify" in message
    with ArrayReader(array.parent, array.name) as reader:
        np.testing.assert_array_equal(reader.read_rows(0, 8), values_of(small[3])[:8])


def test_a_truncated_shard_is_an_error_at_every_length(small: Small) -> None:
    """Also of length 0, which zarr-python reads as fill values."""
    array, shard, *_ = small
    sound = shard.read_bytes()
    for size in (0, 1, len(sound) // 2, len(sound) - 1):
        truncate(shard, size)
        with pytest.raises(DamagedError):
            read_all(array)
        shard.write_bytes(sound)
    shard.write_bytes(bytes(len(sound)))
    with pytest.raises(DamagedError):
        read_all(array)


def test_a_deleted_shard_is_an_error(small: Small) -> None:
    """zarr-python reads a missing shard file as fill values; here it is an error."""
    array, shard, *_ = small
    shard.unlink()
    with pytest.raises(DamagedError, match="missing"):
        read_all(array)
    with ArrayReader(array.parent, array.name) as reader, pytest.raises(DamagedError, match="chunk 1"):
        reader.read_chunk(1, np.empty((4, 3), np.uint16))


def test_an_absent_chunk_is_an_error(small: Small) -> None:
    """An index entry that says "absent", with a right checksum, is an error and does not mean fill values."""
    array, shard, _, spec = small

    def mark_absent(payloads: list[bytes], index: np.ndarray[Any, Any]) -> None:
        index[1] = ABSENT, ABSENT

    edit_shard(shard, spec.chunks_per_shard, mark_absent)
    with pytest.raises(DamagedError, match=r"chunk 1.*absent"):
        read_all(array)


def test_zarr_pythons_left_out_empty_chunks_are_errors(tmp_path: Path) -> None:
    """Reading a store written without `write_empty_chunks` is an error: an absent chunk never means a value."""
    spec = array_spec(8)
    create_arrays(tmp_path / "group", [spec])
    values = np.ones((8, 5), np.uint16)
    values[:4] = 0
    zarr.open_array(str(tmp_path / "group" / "item"), mode="r+")[...] = values
    with pytest.raises(DamagedError, match="absent"):
        read_all(tmp_path / "group" / "item")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ((10**6, 50), "outside"),
        ((2**64 - 8, 16), "outside"),  # offset + nbytes wraps to 8
        ((0, 2**63), "outside"),
        ((5, 2**64 - 1), "outside"),  # wraps to 4
        ((0, 27), "not match|not 28"),
        ((0, 0), "impossible"),
        ((0, 4), "impossible"),
    ],
)
def test_an_index_that_points_elsewhere_is_an_error(small: Small, entry: tuple[int, int], reason: str) -> None:
    """Offsets and sizes of an index with a sound checksum are checked against the file before they are used."""
    array, shard, _, spec = small

    def point(payloads: list[bytes], index: np.ndarray[Any, Any]) -> None:
        index[0] = entry

    edit_shard(shard, spec.chunks_per_shard, point)
    with pytest.raises(DamagedError, match=reason):
        read_all(array)


BOMB_SCRIPT = """
import sys
from pathlib import Path
from streamfeat.workers.process import peak_memory
from streamfeat.errors import DamagedError
from streamfeat.store.reader import ArrayReader
before = peak_memory()
for array in map(Path, sys.argv[1:]):
    try:
        with ArrayReader(array.parent, array.name) as reader:
            reader.read_rows(0, reader.shape[0])
    except DamagedError as error:
        print(error)
    else:
        sys.exit("read a bomb")
assert peak_memory() - before < 20_000_000, "took memory"
"""


def zstd_bomb(num_blocks: int, announced: int) -> bytes:
    """A zstd frame of `num_blocks` RLE blocks of 128 KiB, 4 bytes each, that announces `announced` bytes."""
    blocks = [
        (int(k == num_blocks - 1) | 1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\0" for k in range(num_blocks)
    ]
    return bytes.fromhex("28b52ffd") + bytes([0xC0, 0x90]) + announced.to_bytes(8, "little") + b"".join(blocks)


def test_a_decompression_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """A chunk whose header announces 2 GiB, or that would decompress to it, is an error within 20 MiB of memory."""
    arrays = []
    for name, compression in (("blosc", "lz4"), ("zstd", "zstd"), ("long", "zstd"), ("liar", "zstd")):
        spec = array_spec(8, (3,), compression=compression, name=name)
        write_array(tmp_path, "group", spec, values_of(spec))
        arrays.append(tmp_path / "group" / name)

        def plant(payloads: list[bytes], index: np.ndarray[Any, Any], name: str = name) -> None:
            if name == "blosc":
                payload = bytearray(payloads[0])
                payload[4:8] = (2**31 - 1).to_bytes(4, "little")
                payloads[0] = bytes(payload)
            else:
                payloads[0] = {
                    "zstd": zstd_bomb(100, 2**31),
                    "long": zstd_bomb(16_384, 2**31),  # 64 KiB that unpack to 2 GiB
                    "liar": zstd_bomb(100, 24),  # announces what is expected
                }[name]

        edit_shard(arrays[-1] / "c" / "0" / "0", 2, plant)
    run = subprocess.run([sys.executable, "-c", BOMB_SCRIPT, *map(str, arrays)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    reasons = run.stdout.splitlines()
    assert "announces 2147483647 bytes" in reasons[0]
    assert "announces 2147483648 bytes" in reasons[1]
    assert "impossible" in reasons[2]
    assert "decompressed" in reasons[3]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_forged_payload_never_writes_beyond_its_chunk(compression: Compression) -> None:
    """Checksums find accidents. Even forged data are decoded only inside the chunk's memory."""
    rng = np.random.default_rng(5)
    values = rng.integers(0, 40, (16, 64)).astype(np.uint32)
    payload = encode_chunk(values, compression)
    memory = np.full(values.nbytes + 2048, 77, np.uint8)
    out = memory[1024:-1024].view(np.uint32).reshape(values.shape)
    refused = 0
    for _ in range(3000):
        forged = payload.copy()
        places = rng.integers(0, 32 if rng.random() < 0.5 else forged.size, 2)
        forged[places] = rng.integers(0, 256, 2)
        try:
            decompress(forged, compression, out)
        except ChunkError:
            refused += 1
        assert (memory[:1024] == 77).all()
        assert (memory[-1024:] == 77).all()
    assert refused > 100


def edited(*changes: tuple[tuple[str | int, ...], Any]) -> Any:
    """An edit of a JSON document: (path, new value) pairs."""

    def edit(document: Any) -> None:
        for path, value in changes:
            place = document
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value

    return edit


SHARDING = ("codecs", 0, "configuration")
SHARD_SHAPE = ("chunk_grid", "configuration", "chunk_shape")
CHUNK_SHAPE = (*SHARDING, "chunk_shape")


def edit_metadata(array: Path, edit: Any) -> None:
    document = json.loads((array / "zarr.json").read_text())
    edit(document)
    (array / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "edit",
    [
        edited((("shape",), [2**60, 3])),
        edited((("shape",), [16, 10**9])),
        edited((("shape",), [-1, 3])),
        edited((("shape",), ["16", 3])),
        edited((("shape",), [])),
        edited((("data_type",), "object")),
        edited((("data_type",), {"name": "null_terminated_bytes", "configuration": {"length_bytes": 10**9}})),
        edited((SHARD_SHAPE, [10**12, 3])),
        edited((SHARD_SHAPE, [7, 3])),
        edited((SHARD_SHAPE, [0, 3])),
        edited((SHARD_SHAPE, [8, 2])),
        edited((SHARD_SHAPE, [2**40, 3]), (CHUNK_SHAPE, [2**40, 3])),
        edited((CHUNK_SHAPE, [2**40, 3])),
        edited((CHUNK_SHAPE, [4, 1])),
        edited((("chunk_grid", "name"), "rectilinear")),
        edited((("chunk_key_encoding", "configuration", "separator"), ".")),
        edited(((*SHARDING, "codecs"), [{"name": "bytes", "configuration": {"endian": "little"}}])),
        edited(((*SHARDING, "codecs", 0, "configuration"), {"endian": "big"})),
        edited(((*SHARDING, "codecs", 0), {"name": "pickle"})),
        edited(((*SHARDING, "index_location"), "start")),
        edited((("codecs",), [])),
        edited((("attributes",), None)),
        edited((("dimension_names",), ["window"])),
        edited((("fill_value",), "Infinity")),
        edited((("storage_transformers",), [{"name": "evil"}])),
        edited((("must_understand",), {})),
        edited((("zarr_format",), 2)),
    ],
)
def test_an_edited_zarr_json_is_refused_at_opening(small: Small, edit: Any) -> None:
    """Shapes, dtype, codecs and keys are checked before any byte of a shard is read."""
    edit_metadata(small[0], edit)
    with pytest.raises(DamagedError, match=r"zarr\.json.*restore it or build again"):
        ArrayReader(small[0].parent, small[0].name)


@pytest.mark.parametrize(
    "edit",
    [
        edited((("shape",), [10**12, 3])),
        edited((("shape",), [2**48, 3])),
        edited((("data_type",), "uint32")),
        edited((CHUNK_SHAPE, [1, 3])),
        edited((SHARD_SHAPE, [4, 3])),
    ],
)
def test_metadata_that_its_shards_contradict_is_refused_before_memory_is_taken(small: Small, edit: Any) -> None:
    """An array of 10^12 rows with two shard files is damaged: reading it needs little memory and time."""
    edit_metadata(small[0], edit)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            read_all(small[0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (2 << 20)])
def test_a_zarr_json_that_is_no_document_is_refused(small: Small, content: bytes) -> None:
    """Other content instead of metadata is damage with a remedy, without a traceback."""
    (small[0] / "zarr.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"zarr\.json"):
        ArrayReader(small[0].parent, small[0].name)


def test_an_array_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing array is damage of the dataset: the error names its folder."""
    with pytest.raises(DamagedError, match=r"group/item.*missing"):
        ArrayReader(tmp_path, "group/item")


@pytest.mark.parametrize("link", ["c", "c/0", "c/0/0", "zarr.json", "."])
def test_a_symbolic_link_is_not_followed(small: Small, tmp_path: Path, link: str) -> None:
    """zarr-python follows links inside a store. The reader rejects them in every step of the path."""
    array, *_ = small
    target = array if link == "." else array / link
    moved = tmp_path / "elsewhere"
    target.rename(moved)
    target.symlink_to(moved)
    with pytest.raises(DamagedError, match="link"):
        read_all(array)


def test_a_pipe_in_place_of_a_shard_does_not_hang(small: Small) -> None:
    """A file that is not a regular one is an error at once."""
    array, shard, *_ = small
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(DamagedError):
        read_all(array)


def test_threads_share_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that read one array in different orders all read it right, also while shards are closed and reopened."""
    monkeypatch.setattr(reader_module, "MAX_OPEN_SHARDS", 2)
    spec = array_spec(203, (50,), "uint32", chunk_rows=4, shard_rows=8)
    values = values_of(spec)
    write_array(tmp_path, "group", spec, values)
    wrong: list[object] = []
    with ArrayReader(tmp_path, "group/item") as reader:

        def read(seed: int) -> None:
            try:
                for chunk in np.random.default_rng(seed).permutation(np.repeat(np.arange(reader.num_chunks), 4)):
                    rows = values[chunk * 4 : chunk * 4 + 4]
                    out = np.empty_like(rows)
                    reader.read_chunk(int(chunk), out)
                    if not np.array_equal(out, rows):
                        wrong.append(chunk)
            except Exception as error:  # noqa: BLE001  it is asserted on below
                wrong.append(error)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_reading_a_chunk_allocates_no_array(tmp_path: Path, compression: Compression) -> None:
    """Allocating memory is slow: after a thread's first read, a chunk of 64 KiB needs less than 4 KiB."""
    spec = array_spec(72, (1024,), "uint16", chunk_rows=32, shard_rows=64, compression=compression)
    write_array(tmp_path, "group", spec, values_of(spec))
    whole, edge = np.empty((32, 1024), np.uint16), np.empty((8, 1024), np.uint16)
    with ArrayReader(tmp_path, "group/item") as reader:
        reader.read_chunk(0, whole)
        reader.read_chunk(2, edge)
        tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(3):
                reader.read_chunk(1, whole)
                reader.read_chunk(2, edge)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak - before < 4096


def test_open_files_are_bounded_and_given_back(tmp_path: Path) -> None:
    """An array of many shards keeps at most MAX_OPEN_SHARDS files open, and none after close."""
    spec = array_spec(3 * reader_module.MAX_OPEN_SHARDS, (1,), chunk_rows=1, shard_rows=1)
    values = values_of(spec)
    write_array(tmp_path, "group", spec, values)

    def num_open() -> int:
        links = [os.path.realpath(fd) for fd in Path("/dev/fd").iterdir()]
        return sum(link.startswith(str(tmp_path)) for link in links)

    reader = ArrayReader(tmp_path, "group/item")
    np.testing.assert_array_equal(reader.read_rows(0, spec.num_rows), values)
    assert num_open() == reader_module.MAX_OPEN_SHARDS
    reader.close()
    assert num_open() == 0


def test_rows_outside_of_the_array_are_an_index_error(tmp_path: Path) -> None:
    """Unlike a slice, `read_rows` never returns fewer rows than requested."""
    spec = array_spec(10)
    write_array(tmp_path, "group", spec, values_of(spec))
    with ArrayReader(tmp_path, "group/item") as reader:
        for start, stop in ((0, 11), (-1, 3), (5, 4)):
            with pytest.raises(IndexError):
                reader.read_rows(start, stop)
        assert reader.read_rows(10, 10).shape == (0, 5)
