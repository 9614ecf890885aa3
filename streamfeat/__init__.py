"""Builds datasets of watch histories and trains sequence models on them.

    import streamfeat
    data = streamfeat.build("ratings.csv", "data", window_len=512)
    run = streamfeat.train(data, "run", preset="tiny")
    run.evaluate().to_frame()
    run.recommend(user="42", k=10).to_frame()

`build` and `open` return a `Dataset`, `train` and `open_run` a `TrainedRun`. `WindowStream` and
`streamfeat.torch.WindowDataset` give batches for your own training loop, `streamfeat.testing` is for your own tests.
The names that end in `_steps` are the same calls as generators: they yield their progress and print nothing. See
docs/python.md.

`import streamfeat` is fast: Numba, Zarr, DuckDB, Arrow and torch are imported when they are first needed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamfeat import testing as testing
    from streamfeat import torch as torch
    from streamfeat.builder.coordinator import build_steps
    from streamfeat.builder.repair import repair_steps
    from streamfeat.config import BuildConfig as BuildConfig
    from streamfeat.dataset import Dataset, build, open_dataset
    from streamfeat.errors import StreamfeatError
    from streamfeat.export import export_steps
    from streamfeat.rows import Rows
    from streamfeat.store.manifest import Manifest as Manifest
    from streamfeat.store.manifest import load_manifest
    from streamfeat.store.verify import verify_steps
    from streamfeat.stream.stream import WindowStream
    from train.evaluation.evaluate import evaluate_steps
    from train.inference.every_user import recommend_all_steps
    from train.inference.recommend import recommend_steps
    from train.inference.refresh import refresh_steps
    from train.trained_run import TrainedRun, open_run, train
    from train.training.loop import train_steps

    open = open_dataset
    __version__: str

# Public name → (module that defines it, its name there; "" for the module itself).
_HOMES = {
    "BuildConfig": ("streamfeat.config", "BuildConfig"),
    "Dataset": ("streamfeat.dataset", "Dataset"),
    "Manifest": ("streamfeat.store.manifest", "Manifest"),
    "Rows": ("streamfeat.rows", "Rows"),
    "StreamfeatError": ("streamfeat.errors", "StreamfeatError"),
    "TrainedRun": ("train.trained_run", "TrainedRun"),
    "WindowStream": ("streamfeat.stream.stream", "WindowStream"),
    "build": ("streamfeat.dataset", "build"),
    "build_steps": ("streamfeat.builder.coordinator", "build_steps"),
    "evaluate_steps": ("train.evaluation.evaluate", "evaluate_steps"),
    "export_steps": ("streamfeat.export", "export_steps"),
    "load_manifest": ("streamfeat.store.manifest", "load_manifest"),
    "open": ("streamfeat.dataset", "open_dataset"),
    "open_run": ("train.trained_run", "open_run"),
    "recommend_all_steps": ("train.inference.every_user", "recommend_all_steps"),
    "recommend_steps": ("train.inference.recommend", "recommend_steps"),
    "refresh_steps": ("train.inference.refresh", "refresh_steps"),
    "repair_steps": ("streamfeat.builder.repair", "repair_steps"),
    "testing": ("streamfeat.testing", ""),
    "torch": ("streamfeat.torch", ""),
    "train": ("train.trained_run", "train"),
    "train_steps": ("train.training.loop", "train_steps"),
    "verify_steps": ("streamfeat.store.verify", "verify_steps"),
}

# What a star import takes, and `help(streamfeat)` prints at length. Left out: `open` and `torch`, which would replace
# names that most scripts use; BuildConfig and Manifest, each with 500 lines of pydantic's help.
__all__ = [
    "Dataset",
    "Rows",
    "StreamfeatError",
    "TrainedRun",
    "WindowStream",
    "__version__",
    "build",
    "build_steps",
    "evaluate_steps",
    "export_steps",
    "load_manifest",
    "open_run",
    "recommend_all_steps",
    "recommend_steps",
    "refresh_steps",
    "repair_steps",
    "train",
    "train_steps",
    "verify_steps",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'streamfeat' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    if module.startswith("train."):
        from streamfeat.trainer import load_trainer

        load_trainer()  # the user's own script may be called train.py
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*_HOMES, "__version__"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("streamfeat")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"
