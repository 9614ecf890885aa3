"""The task that makes and commits one shard of exported features."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import MaskPolicy, Objective, SplitName, StreamConfig
from streamfeat.export.features import CAUSAL, causal_spec, features_of, token_specs
from streamfeat.export.hdf5 import shard_image
from streamfeat.records import Frozen
from streamfeat.store.layout import ArraySpec
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.receipts import FeaturesReceipt
from streamfeat.store.writer import commit_receipt, write_shard, write_whole
from streamfeat.stream.chunk_source import StoredSource
from streamfeat.stream.chunks import ChunkPool
from streamfeat.stream.featurize import Featurizer, allocate_buffers

EXPORT_VERSION = 1  # version of the layout of exported features; independent of the version of datasets
FEATURES = "features"  # the folder, inside the hidden folder of an export, that becomes DEST


class Export(Frozen):
    """The description of an export: everything that determines its bytes."""

    fingerprint: str  # of the dataset
    objective: Objective
    mask_policy: MaskPolicy
    split: SplitName
    epoch: int  # decides the masks
    packing: int  # has the windows
    seed: int  # of the run
    hdf5: bool

    def attributes(self, manifest: Manifest) -> dict[str, Any]:
        """The attributes of the Zarr group or of each HDF5 file."""
        schema = manifest.data_schema
        said = self.model_dump(
            mode="json", exclude={"hdf5"} | ({"mask_policy"} if self.objective == "causal" else set())
        )
        return {
            "format_version": EXPORT_VERSION,
            **said,
            "id_base": 0,
            "media": list(schema.media),
            "medium_offsets": list(schema.medium_offsets),
            "num_users": schema.num_users,
            "window_len": schema.window_len,
            "num_windows": manifest.splits[self.split].windows,
            "time_origin_unix_seconds": schema.time_origin,
            "time_min": manifest.time_min,
            "time_max": manifest.time_max,
            "rating_max": schema.rating_max,
        }


class ExportTask(Frozen):
    """Write one shard of every array."""

    export: Export
    dataset: str  # its folder
    shard: int
    digest: str  # of the export

    @property
    def name(self) -> str:
        return f"features-{self.shard:05d}"


def hdf5_file(shard: int) -> str:
    return f"{shard}.h5"


def run_export(root: Path, task: ExportTask) -> FeaturesReceipt:
    """Writes and commits shard `task.shard` below `root`, the hidden folder of an export."""
    export, manifest = task.export, load_manifest(task.dataset)
    specs = token_specs(manifest, manifest.splits[export.split])
    arrays = _make(task, manifest, specs)
    if export.hdf5:
        arrays[CAUSAL] = np.array([export.objective == "causal"])
        image = shard_image([causal_spec(manifest.data_schema), *specs], arrays, export.attributes(manifest))
        files = [write_whole(root, f"{FEATURES}/{hdf5_file(task.shard)}", image)]
    else:
        files = [write_shard(root, FEATURES, spec, task.shard, arrays[spec.name]) for spec in specs]
    num_windows = len(arrays["user"])
    receipt = FeaturesReceipt(
        task=task.name, digest=task.digest, rows=num_windows, files=tuple(files), shard=task.shard
    )
    commit_receipt(root, receipt)
    return receipt


def _make(task: ExportTask, manifest: Manifest, specs: list[ArraySpec]) -> dict[str, NDArray[Any]]:
    """The shard's arrays, filled chunk by chunk with the decoder and kernels of a stream."""
    export, counts = task.export, manifest.splits[task.export.split]
    low = task.shard * counts.shard_windows
    high = min(low + counts.shard_windows, counts.windows)
    arrays = {spec.name: np.empty((high - low, *spec.row_shape), spec.dtype) for spec in specs}
    pool = ChunkPool(StoredSource(Path(task.dataset), manifest, export.split), manifest, export.split, num_slots=1)
    pool.open(export.packing)
    for first in range(low, high, counts.chunk_windows):
        pool.decode(first // counts.chunk_windows, 0)
        windows = np.arange(first, min(first + counts.chunk_windows, high))
        for name, values in _features(export, manifest, pool.arrays, windows).items():
            arrays[name][windows - low] = values
    pool.close()
    return arrays


def _features(
    export: Export, manifest: Manifest, stored: dict[str, NDArray[Any]], windows: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """The features of `windows`, which are the first rows of `stored`."""
    config = StreamConfig(
        objective=export.objective,
        mask_policy=export.mask_policy,
        split=export.split,
        seed=export.seed,
        batch_windows=len(windows),
    )
    featurizer = Featurizer(manifest, config)
    rows = np.arange(len(windows))

    def batch_of(fields: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        out = allocate_buffers(len(windows), manifest.data_schema.window_len)
        featurizer.fill(fields, rows, windows, rows, export.epoch, out)
        return out.arrays

    batch = batch_of(stored)
    rating_masked = batch["status"] == manifest.data_schema.status_tokens.mask
    if export.objective == "masked" and export.mask_policy == "seed":
        # A picked token without a rating may be kept. Fill the batch with all ratings known: only masked ones are then
        # unknown.
        rating_masked &= ~batch_of(stored | {"rating": np.zeros_like(stored["rating"])})["rating_known"]
    return features_of(batch, rating_masked, manifest, export.objective)
