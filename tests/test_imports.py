"""What import-linter cannot say: it sees a library as one module, and holds no list of all that a folder may use."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
PRODUCT = {
    str(path.relative_to(HOUSE)): path.read_text("utf-8")
    for package in ("streamfeat", "train", "streamfeat_cli")
    for path in HOUSE.joinpath(package).rglob("*.py")
}

# All that the model may use. Of the store it may know what manifest and items say, of the tables of training events
# what they hold, not how either is read.
MODEL_MAY_USE = [
    "collections.abc",
    "dataclasses",
    "itertools",
    "math",
    "typing",
    "numpy",
    "torch",
    "triton",
    "streamfeat.config",
    "streamfeat.kernels",
    "streamfeat.records.Frozen",
    "streamfeat.schema",
    "streamfeat.store.manifest.Manifest",
    "streamfeat.store.manifest.MediumScales",
    "streamfeat.store.tables.ItemTable",
    "train.config",
    "train.model",
    "train.terms.popularity",
    "train.terms.ratings",
    "train.terms.terms.Terms",
    "train.terms.transitions",
]
# What of numpy and torch goes to files, processes and other ranks.
FILES_OF_NUMPY = ("ctypeslib", "fromfile", "genfromtxt", "lib", "load", "loadtxt", "memmap", "save", "savetxt", "savez")
FILES_OF_TORCH = ("from_file", "hub", "jit", "load", "package", "save", "serialization", "utils")
RANKS_OF_TORCH = ("distributed", "multiprocessing")
MODEL_MAY_NOT_USE = [
    *(f"numpy.{name}" for name in FILES_OF_NUMPY),
    *(f"torch.{name}" for name in (*FILES_OF_TORCH, *RANKS_OF_TORCH)),
]
BUILTINS = ("open", "exec", "eval", "__import__")

FILES_OF_ARROW = (
    "OSFile",
    "csv",
    "dataset",
    "feather",
    "fs",
    "input_stream",
    "ipc",
    "json",
    "memory_map",
    "orc",
    "parquet",
)


def names_used(code: str) -> set[str]:
    """Full names: what is imported, what is taken from that (`np.load` is numpy.load), and some builtins."""
    names: set[str] = set()
    meaning = {name: f"builtins.{name}" for name in BUILTINS}
    nodes = list(ast.walk(ast.parse(code)))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.add(alias.name)
                short = alias.name.partition(".")[0]
                meaning[alias.asname or short] = alias.name if alias.asname else short
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                names.add(full)
                meaning[alias.asname or alias.name] = full
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            if first in meaning:
                names.add(meaning[first] + dot + rest)
    return names


def among(name: str, modules: Iterable[str]) -> bool:
    """Whether `name` is one of these or lies in one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def refused_to_the_model(code: str) -> list[str]:
    return sorted(name for name in names_used(code) if not among(name, MODEL_MAY_USE) or among(name, MODEL_MAY_NOT_USE))


def test_the_model_touches_no_file_and_no_rank() -> None:
    """It uses what is on its list and nothing else."""
    files = {name: code for name, code in PRODUCT.items() if name.startswith("train/model/")}
    assert len(files) > 10
    assert {name: refused for name, code in files.items() if (refused := refused_to_the_model(code))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import torch.distributed",
        "import torch.distributed as dist",
        "from torch import distributed",
        "torch.distributed.get_rank()",
        "torch.save({}, 'weights')",
        "np.load('weights.npy')",
        "open('weights')",
        "from streamfeat.store.manifest import load_manifest",
        "import streamfeat.store.manifest",
        "from streamfeat.store.histories import HistoryReader",
        "from streamfeat.stream.stream import WindowStream",
        "import streamfeat.builder.coordinator",
        "from train.devices.ranks import Ranks",
        "import pickle",
        "import mmap, glob, socket",
        "from pathlib import Path",
        "import pyarrow.parquet",
        "def later():\n    import os",
        "from ..runs import folder",
    ],
)
def test_a_model_that_reaches_for_a_file_or_a_rank_is_refused(line: str) -> None:
    """Else the list would be one that refuses nothing."""
    heads = PRODUCT["train/model/heads.py"]
    assert refused_to_the_model(heads) == []
    assert refused_to_the_model(f"{heads}\n{line}\n") != []


@pytest.mark.parametrize(
    ("library", "doors"),
    [
        (
            [f"pyarrow.{name}" for name in FILES_OF_ARROW],
            ("streamfeat/events/", "streamfeat/store/", "train/inference/every_user.py"),
        ),
        (["torch.distributed"], ("train/devices/", "streamfeat/torch.py")),
    ],
    ids=["files of Arrow", "torch.distributed"],
)
def test_a_part_of_a_library_has_its_doors(library: list[str], doors: tuple[str, ...]) -> None:
    """Tables and their computing may stand anywhere; who opens files or talks to ranks is named here."""
    users = {name for name, code in PRODUCT.items() if any(among(used, library) for used in names_used(code))}
    assert {name for name in users if not name.startswith(doors)} == set()
    assert {door for door in doors if not any(name.startswith(door) for name in users)} == set()
