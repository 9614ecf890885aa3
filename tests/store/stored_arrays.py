"""Small arrays and a small dataset for the tests of the store, and faults for their files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamfeat.config import BuildConfig, Compression
from streamfeat.schema import EVENT_FIELDS, FORMAT_VERSION, FloatCode, Schema
from streamfeat.store.codecs import crc32c
from streamfeat.store.layout import (
    HISTORIES,
    ITEMS,
    MANIFEST,
    RECEIPTS,
    WINDOWS,
    ArraySpec,
    create_arrays,
    create_group,
)
from streamfeat.store.manifest import Manifest, MediumScales, SplitCounts, manifest_json
from streamfeat.store.receipts import (
    FileRecord,
    HistoryFacts,
    HistoryReceipt,
    MetadataReceipt,
    OffsetsReceipt,
    Receipt,
    TablesReceipt,
    WindowReceipt,
)
from streamfeat.store.writer import commit_receipt, metadata_records, write_shard, write_whole

COMPRESSIONS: tuple[Compression, ...] = ("lz4", "zstd", "none")


def array_spec(
    num_rows: int,
    row_shape: tuple[int, ...] = (5,),
    dtype: DTypeLike = "uint16",
    *,
    chunk_rows: int = 4,
    shard_rows: int = 8,
    compression: Compression = "lz4",
    name: str = "item",
    fill_value: float | int = 0,
) -> ArraySpec:
    return ArraySpec(
        name=name, num_rows=num_rows, row_shape=row_shape, dtype=np.dtype(dtype), chunk_rows=chunk_rows,
        shard_rows=shard_rows, fill_value=fill_value, dimension_names=("window", "token")[: 1 + len(row_shape)],
        compression=compression,
    )  # fmt: skip


def values_of(spec: ArraySpec, seed: int = 0) -> NDArray[Any]:
    """Values of every kind: repetitive, extreme, and NaN where the dtype has it."""
    rng = np.random.default_rng(seed)
    shape = (spec.num_rows, *spec.row_shape)
    if spec.dtype.kind == "f":
        values = rng.normal(size=shape).astype(spec.dtype)
        values[rng.random(shape) < 0.2] = np.nan
        return values
    limits = np.iinfo(spec.dtype)
    values = rng.integers(0, 4, shape).astype(spec.dtype)
    values[rng.random(shape) < 0.1] = limits.max
    values[rng.random(shape) < 0.1] = limits.min
    return values


def write_array(root: Path, group: str, spec: ArraySpec, values: NDArray[Any]) -> list[FileRecord]:
    """Creates the array and writes every shard of it."""
    create_arrays(root / group, [spec])
    size = spec.shard_rows
    return [write_shard(root, group, spec, n, values[n * size : (n + 1) * size]) for n in range(spec.num_shards)]


def flip(file: Path, at: int, mask: int = 0xFF) -> None:
    """Changes one byte of a file."""
    data = bytearray(file.read_bytes())
    data[at] ^= mask
    file.write_bytes(data)


def truncate(file: Path, size: int) -> None:
    with file.open("rb+") as handle:
        handle.truncate(size)


def edit_shard(
    file: Path, num_chunks: int, edit: Callable[[list[bytes], NDArray[np.uint64]], None]
) -> None:  # fmt: skip
    """Let `edit` change a shard's payloads (without crc32c) or its index; write it back with sound checksums.

    Where `edit` leaves an index entry alone, it is made to fit the payloads.
    """
    data = file.read_bytes()
    tail = 16 * num_chunks + 4
    index = np.frombuffer(data[-tail:-4], "<u8").reshape(num_chunks, 2).copy()
    payloads = [data[int(offset) : int(offset + nbytes) - 4] for offset, nbytes in index]
    before = index.copy()
    edit(payloads, index)
    body = b""
    for chunk, payload in enumerate(payloads):
        if (index[chunk] == before[chunk]).all():
            index[chunk] = len(body), len(payload) + 4
        body += payload + crc32c(np.frombuffer(payload, np.uint8))
    file.write_bytes(body + index.tobytes() + crc32c(index))


def write_dataset(root: Path) -> Manifest:
    """A sound dataset as a build leaves it: 21 training and 3 validation windows of 8 tokens, 40 events, 6 users."""
    half_stars = FloatCode.of_levels([0.5, 4.5])
    schema = Schema(
        media=("anime",), medium_offsets=(0, 100), num_users=6, window_len=8, time_dtype="uint32",
        time_origin=1_000_000_000, rating=half_stars, completion=FloatCode(dtype="float32"), rating_max=4.5,
    )  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    (root / RECEIPTS).mkdir()
    receipts: list[Receipt] = []

    def commit(made: Callable[..., Receipt], task: str, files: list[FileRecord], **facts: Any) -> None:
        receipts.append(made(task=task, digest="d", rows=1, files=tuple(files), **facts))
        commit_receipt(root, receipts[-1])

    facts = HistoryFacts(training_times=(0, 1), ratings=((2.0,), (0.1,), (0.01,)))

    columns = [array_spec(40, (), schema.field(n).dtype, name=n, chunk_rows=8, shard_rows=16) for n in EVENT_FIELDS]
    offsets = array_spec(7, (), "int64", name="offsets", chunk_rows=8, shard_rows=16)
    for spec in columns:
        commit(HistoryReceipt, f"history-{spec.name}", write_array(root, HISTORIES, spec, values_of(spec)), facts=facts)
    commit(OffsetsReceipt, "offsets", write_array(root, HISTORIES, offsets, values_of(offsets)))
    create_group(root / WINDOWS)
    splits = {}
    for number, (split, windows) in enumerate((("training", 21), ("validation", 3))):
        create_group(root / WINDOWS / split)
        files = []
        for field in schema.token_fields():
            spec = ArraySpec(
                name=field.name, num_rows=windows, row_shape=(8,), dtype=field.dtype, chunk_rows=2, shard_rows=8,
                fill_value=field.pad, dimension_names=("window", "token"), compression="lz4",
                attributes=field.attributes,
            )  # fmt: skip
            files += write_array(root, f"{WINDOWS}/{split}/0", spec, values_of(spec, seed=number))
        commit(WindowReceipt, f"window-{split}-0", files, split=split, packing=0, shard=0)
        splits[split] = SplitCounts(
            users=3, events=20, tokens=23, windows=windows, chunk_windows=2, shard_windows=8, packings=1
        )
    tables = [write_whole(root, ITEMS, b"not a table, but a file")]
    commit(TablesReceipt, "tables", tables)
    for store in ("histories.zarr", "windows.zarr"):
        commit(MetadataReceipt, f"metadata-{store}", list(metadata_records(root, store)), store=store)
    scales = MediumScales(medium="anime", items=100, events=40, targets=40, ratings=10, watch_entropy=1.0,
                          rating_mean=1.0, rating_variance=1.0)  # fmt: skip
    manifest = Manifest(
        format_version=FORMAT_VERSION, schema=schema, config=BuildConfig(), sources=(), plan="d", fingerprint="d",
        num_events=40, num_users=6, num_items=100, splits=splits, validation_targets="all", scales=(scales,),
        time_min=0, time_max=1, time_last=1_000_000_001, repeat_share=0.0, tied_events=0, tie_rule="input order",
        cleaning={}, event_chunk=8, event_shard=16, special_tokens={}, receipts=tuple(receipts),
    )  # fmt: skip
    write_whole(root, MANIFEST, manifest_json(manifest).encode())
    return manifest
