"""Receipts have a type for each kind of task. All types can be written and read; receipts of format 1 are converted."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any, get_args

import pytest
from edited_manifests import edit_manifest
from pydantic import TypeAdapter, ValidationError

from streamfeat.errors import DamagedError
from streamfeat.store.manifest import load_manifest
from streamfeat.store.receipts import (
    CommonReceipt,
    FeaturesReceipt,
    FileRecord,
    FilterFacts,
    FilterReceipt,
    HistoryFacts,
    HistoryReceipt,
    MetadataReceipt,
    OffsetsReceipt,
    PartitionFacts,
    PartitionReceipt,
    Receipt,
    RejectedReceipt,
    SplitFacts,
    SplitReceipt,
    TablesReceipt,
    WindowReceipt,
)
from streamfeat.store.writer import commit_receipt, read_receipt

HEAD: dict[str, Any] = {
    "task": "a-task",
    "digest": "d",
    "rows": 3,
    "files": (FileRecord(path="a", size=1, sha256="s"), FileRecord(path="b", size=2, sha256="t", crc32c="00000001")),
}
SORTED: dict[str, Any] = {
    "users": 2, "events": 3, "tied": 1, "targets": 3, "repeats": 0, "time_range": (5, 7),
    "rating_levels": (0.10000000149011612, 5.0), "rating_max": 5.0, "completion_levels": None,
}  # fmt: skip
RECEIPTS: list[CommonReceipt] = [
    SplitReceipt(
        **HEAD, facts=SplitFacts(counts={"rows": 3}, media=("b", "a"), media_seen=("a", "b", "c"), num_blocks=1)
    ),
    PartitionReceipt(**HEAD, facts=PartitionFacts(**SORTED, duplicates=1)),
    FilterReceipt(
        **HEAD,
        facts=FilterFacts(**SORTED | {"time_range": ()}, filtered_by_item=1, filtered_by_user=2, users_filtered=3),
    ),
    OffsetsReceipt(**HEAD),
    HistoryReceipt(**HEAD, facts=HistoryFacts(training_times=(0, 9), ratings=((1.0,), (0.1,), (0.01,)))),
    TablesReceipt(**HEAD),
    RejectedReceipt(**HEAD),
    MetadataReceipt(**HEAD, store="windows.zarr"),
    WindowReceipt(**HEAD, split="validation", packing=0, shard=7),
    FeaturesReceipt(**HEAD, shard=7),
]


def test_every_kind_is_tried_here() -> None:
    """So that a new kind is tested, too."""
    kinds = get_args(get_args(Receipt)[0])
    assert {type(receipt) for receipt in RECEIPTS} == set(kinds)
    assert len({receipt.model_dump()["kind"] for receipt in RECEIPTS}) == len(kinds)


@pytest.mark.parametrize("receipt", RECEIPTS, ids=lambda receipt: type(receipt).__name__)
def test_every_kind_survives_its_file(tmp_path: Path, receipt: CommonReceipt) -> None:
    """Its type and all values are read back."""
    commit_receipt(tmp_path, receipt)
    found = read_receipt(tmp_path, "a-task")
    assert found == receipt
    assert type(found) is type(receipt)


@pytest.mark.parametrize("receipt", RECEIPTS, ids=lambda receipt: type(receipt).__name__)
def test_facts_of_another_kind_are_refused(receipt: CommonReceipt) -> None:
    """Unknown fields in a receipt are an error, and so are missing ones."""
    adapter: TypeAdapter[Any] = TypeAdapter(Receipt)
    values = receipt.model_dump(mode="json")
    with pytest.raises(ValidationError):
        adapter.validate_python(values | {"facts": {"share": 0.1}})
    with pytest.raises(ValidationError):
        adapter.validate_python(values | {"bytes": 1})
    for name in values.keys() - CommonReceipt.model_fields.keys():
        with pytest.raises(ValidationError):
            adapter.validate_python({key: value for key, value in values.items() if key != name})


def test_an_unknown_kind_in_a_manifest_is_damage(tiny_dataset: Path, tmp_path: Path) -> None:
    """The message names the receipt, the kind, and the known kinds."""
    shutil.copy(tiny_dataset / "dataset.json", tmp_path)
    edit_manifest(tmp_path, lambda values: values["receipts"][1].update(kind="wish"))
    with pytest.raises(DamagedError, match=r"receipts\.1: .*'wish'.*'split', 'partition'"):
        load_manifest(tmp_path)


def test_an_unknown_kind_in_a_file_counts_for_nothing(tmp_path: Path) -> None:
    """The task is done again."""
    commit_receipt(tmp_path, TablesReceipt(**HEAD))
    file = tmp_path / "receipts/a-task.json"
    file.write_text(file.read_text("utf-8").replace('"tables"', '"wish"'), "utf-8")
    assert read_receipt(tmp_path, "a-task") is None


def test_a_manifest_of_format_1_has_typed_receipts(tmp_path: Path) -> None:
    """Information that was only in the names of its tasks is then in fields of the receipts."""
    with tarfile.open(Path(__file__).parents[1] / "golden/format-1/users.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / "users"
    stored = json.loads((root / "dataset.json").read_text("utf-8"))
    assert {receipt["kind"] for receipt in stored["receipts"]} == {"history", "tables", "metadata", "window"}
    receipts = load_manifest(root).receipts
    found = {receipt.task: receipt for receipt in receipts}
    assert isinstance(found["offsets"], OffsetsReceipt)
    history = found["history-00000"]
    assert isinstance(history, HistoryReceipt)
    assert len(history.facts.training_times) == 2
    assert {r.task: r.store for r in receipts if isinstance(r, MetadataReceipt)} == {
        "metadata-histories": "histories.zarr", "metadata-windows-2": "windows.zarr"
    }  # fmt: skip
    windows = [receipt for receipt in receipts if isinstance(receipt, WindowReceipt)]
    assert {(w.split, w.packing) for w in windows} == {("training", 0), ("training", 1), ("validation", 0)}
    for w in windows:
        assert {file.path.rpartition(f"/c/{w.shard}/")[0].rpartition("/")[0] for file in w.files} == {
            f"windows.zarr/{w.split}/{w.packing}"
        }
    assert all(read_receipt(root, receipt.task) == receipt for receipt in receipts)


def test_rejected_rows_of_format_1_are_no_tables() -> None:
    """In format 1 they were a tables receipt with another name."""
    adapter: TypeAdapter[Any] = TypeAdapter(Receipt)
    values = {**TablesReceipt(**HEAD).model_dump(mode="json"), "facts": {}}
    assert isinstance(adapter.validate_python(values), TablesReceipt)
    assert isinstance(adapter.validate_python(values | {"task": "rejected"}), RejectedReceipt)
