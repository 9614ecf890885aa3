"""The files on disk are plain Zarr v3 that other tools can read and understand."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from stored_arrays import COMPRESSIONS, array_spec, values_of, write_array, write_dataset

from streamfeat.config import Compression
from streamfeat.errors import ConfigError
from streamfeat.store.layout import WINDOWS, ArraySpec, create_arrays, create_group
from streamfeat.store.reader import ArrayReader


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layout") / "data"
    write_dataset(root)
    return root


def test_xarray_reads_names_dimensions_attributes_and_decodes_ratings(dataset: Path) -> None:
    """`xarray.open_zarr` shows windows by token, the meaning of each field, and ratings as given, NaN if missing."""
    xarray = pytest.importorskip("xarray")
    packing = dataset / WINDOWS / "training" / "0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xarray.open_zarr(packing, consolidated=False, chunks=None).load()
    assert dict(found.sizes) == {"window": 21, "token": 8}
    assert set(found) == {"item", "user", "position", "time", "rating", "status", "completion"}
    assert found["item"].attrs["pad_value"] == 101
    assert found["time"].attrs["time_origin_unix_seconds"] == 1_000_000_000
    assert all("long_name" in found[name].attrs for name in found)
    with ArrayReader(packing, "rating") as reader:
        codes = reader.read_rows(0, 21)
    assert codes.dtype == np.uint8
    assert (codes == 255).any()
    np.testing.assert_array_equal(found["rating"], np.where(codes == 255, np.nan, codes * 0.5))


def test_zarr_finds_every_level_as_a_group(dataset: Path) -> None:
    """`zarr.open_group` finds all levels from the store to the fields, without a warning about other files."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = zarr.open_group(str(dataset / WINDOWS), mode="r")
        assert sorted(store.group_keys()) == ["training", "validation"]
        packing = store["training/0"]
        assert isinstance(packing, zarr.Group)
        assert len(list(packing.array_keys())) == 7
    item = packing["item"]
    assert isinstance(item, zarr.Array)
    assert (item.chunks, item.shards, item.metadata.dimension_names) == ((2, 8), (8, 8), ("window", "token"))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tensorstore_reads_the_same(tmp_path: Path, compression: Compression) -> None:
    """A second implementation of Zarr agrees, at odd edges too."""
    tensorstore = pytest.importorskip("tensorstore")
    spec = array_spec(21, compression=compression)
    write_array(tmp_path, "group", spec, values_of(spec))
    store = {"driver": "file", "path": str(tmp_path / "group" / "item")}
    found = tensorstore.open({"driver": "zarr3", "kvstore": store}, read=True).result().read().result()
    np.testing.assert_array_equal(found, values_of(spec))


def test_only_checksummed_core_codecs_are_written(tmp_path: Path) -> None:
    """Each chunk and each index ends with crc32c, and zstd also has a checksum, so every flipped bit is found."""
    for compression in COMPRESSIONS:
        spec = array_spec(9, compression=compression)
        write_array(tmp_path, compression, spec, values_of(spec))
        array = zarr.open_array(str(tmp_path / compression / "item"), mode="r")
        (sharding,) = array.metadata.to_dict()["codecs"]
        settings = sharding["configuration"]
        names = [codec["name"] for codec in settings["codecs"]]
        assert names == ["bytes", *{"lz4": ["blosc"], "zstd": ["zstd"], "none": []}[compression], "crc32c"]
        assert [codec["name"] for codec in settings["index_codecs"]] == ["bytes", "crc32c"]
        if compression == "zstd":
            assert settings["codecs"][1]["configuration"]["checksum"] is True
            descriptor = (tmp_path / compression / "item" / "c" / "0" / "0").read_bytes()[4]
            assert descriptor & 4  # Content_Checksum_flag of the first frame


def test_creating_again_changes_nothing_and_mends_what_a_kill_left(tmp_path: Path) -> None:
    """A rerun does not rewrite metadata, but writes missing or partial ones."""
    specs = [array_spec(9), array_spec(9, (), "float32", name="rating", fill_value=float("nan"))]
    group = tmp_path / "group"
    create_arrays(group, specs, {"title": "windows"})
    files = sorted(group.rglob("zarr.json"))
    assert len(files) == 3
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files}

    def now() -> dict[Path, tuple[bytes, int, int]]:
        return {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files}

    create_arrays(group, specs, {"title": "windows"})
    assert now() == before
    (group / "zarr.json").unlink()
    (group / "item" / "zarr.json").write_bytes(before[group / "item" / "zarr.json"][0][:100])
    create_arrays(group, specs, {"title": "windows"})
    assert {file: content for file, (content, *_) in now().items()} == {f: c for f, (c, *_) in before.items()}
    create_group(tmp_path / "empty")
    create_group(tmp_path / "empty")
    assert list(zarr.open_group(str(tmp_path / "empty"), mode="r").keys()) == []


def test_an_array_without_rows_is_an_array(tmp_path: Path) -> None:
    """A split may have no windows: its arrays exist with shape and dtype, and are empty."""
    spec = array_spec(0)
    assert write_array(tmp_path, "group", spec, values_of(spec)) == []
    with ArrayReader(tmp_path, "group/item") as reader:
        assert reader.read_rows(0, 0).shape == (0, 5)
        assert reader.num_chunks == 0
    assert zarr.open_array(str(tmp_path / "group" / "item"), mode="r").shape == (0, 5)


def test_a_chunk_that_is_too_large_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Chunks are decoded whole in memory: above 1 GiB the error says which option to lower, and no file is written."""
    spec = ArraySpec(
        name="item", num_rows=2048, row_shape=(2**20,), dtype=np.dtype(np.uint32), chunk_rows=512, shard_rows=512,
        fill_value=0, dimension_names=("window", "token"), compression="lz4",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="--chunk-windows"):
        create_arrays(tmp_path / "group", [spec])
    assert list(tmp_path.iterdir()) == []
