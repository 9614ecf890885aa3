"""Watch histories to batches: build Zarr shards from events, stream them into any training loop.

`import streamfeat` is light: Numba, Zarr and DuckDB load when they are first needed.
"""

from typing import TYPE_CHECKING, Any

from streamfeat.config import BuildConfig
from streamfeat.errors import StreamfeatError

if TYPE_CHECKING:
    from streamfeat.builder.coordinator import build_shards, build_steps
    from streamfeat.store.manifest import Manifest, load_manifest
    from streamfeat.stream.stream import WindowStream

__all__ = [
    "BuildConfig",
    "Manifest",
    "StreamfeatError",
    "WindowStream",
    "build_shards",
    "build_steps",
    "load_manifest",
]

_HOMES = {
    "Manifest": "streamfeat.store.manifest",
    "WindowStream": "streamfeat.stream.stream",
    "build_steps": "streamfeat.builder.coordinator",
    "build_shards": "streamfeat.builder.coordinator",
    "load_manifest": "streamfeat.store.manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamfeat' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
