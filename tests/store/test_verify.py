"""`verify` names every fault by array, file and chunk, and reports nothing for a sound dataset."""

import json
import shutil
from pathlib import Path

import pytest
from edited_manifests import edit_manifest, set_shard_checksums
from stored_arrays import flip, truncate, write_dataset

import streamfeat.store.verify
from streamfeat.errors import ConfigError, DamagedError, FormatVersionError, StorageError
from streamfeat.progress import Progress
from streamfeat.store.files import size_and_digest
from streamfeat.store.manifest import load_manifest
from streamfeat.store.verify import Problem, verify_steps
from streamfeat.store.writer import receipt_file

ARRAY = "windows.zarr/training/0/time"
SHARD = f"{ARRAY}/c/1/0"  # windows 8 to 15, chunks 4 to 7


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify") / "data"
    write_dataset(root)
    return root


@pytest.fixture
def dataset(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "data")
    return tmp_path / "data"


def problems(root: Path) -> list[Problem]:
    return [found for found in verify_steps(root) if isinstance(found, Problem)]


def places(root: Path) -> set[tuple[str, str, str, int | None]]:
    return {(problem.kind, problem.array, problem.file, problem.chunk) for problem in problems(root)}


def test_a_sound_dataset_has_no_problem_and_every_file_is_checked(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of the manifest is read once, in order, and counted."""
    read: list[str] = []

    def noted(root: Path, name: str) -> tuple[int, str]:
        read.append(name)
        return size_and_digest(root, name)

    monkeypatch.setattr(streamfeat.store.verify, "size_and_digest", noted)
    records = list(load_manifest(sound).files())
    progress = [Progress("verifying", done, len(records), "files") for done in range(len(records) + 1)]
    assert list(verify_steps(sound)) == progress
    assert read == [record.path for record in records]
    listed = set(read)
    assert {"windows.zarr/zarr.json", f"{ARRAY}/zarr.json", "histories.zarr/zarr.json"} <= listed


def test_an_altered_chunk_is_named(dataset: Path) -> None:
    """A flipped byte in a shard file is found in its chunk; other chunks are not reported."""
    flip(dataset / SHARD, 3)
    assert places(dataset) == {("altered", ARRAY, SHARD, 4)}
    assert "crc32c" in problems(dataset)[0].what
    assert str(problems(dataset)[0]).startswith(f"altered: array {ARRAY}, {SHARD}, chunk 4: ")


def test_every_damaged_chunk_of_a_shard_is_named(dataset: Path) -> None:
    """Damage in several chunks gives one problem each."""
    size = (dataset / SHARD).stat().st_size
    body = size - 4 * 16 - 4
    for at in (3, body - 3):
        flip(dataset / SHARD, at)
    assert places(dataset) == {("altered", ARRAY, SHARD, 4), ("altered", ARRAY, SHARD, 7)}


def test_an_altered_index_is_the_whole_file(dataset: Path) -> None:
    """Without its index the chunks of a shard cannot be found: the file is reported, with the reason."""
    flip(dataset / SHARD, (dataset / SHARD).stat().st_size - 1)
    assert places(dataset) == {("altered", ARRAY, SHARD, None)}
    assert "index" in problems(dataset)[0].what


def test_no_flipped_byte_of_any_file_escapes(dataset: Path) -> None:
    """One byte of each committed file in turn, metadata and tables too: each time that file is reported."""
    for number, record in enumerate(load_manifest(dataset).files()):
        content = (dataset / record.path).read_bytes()
        flip(dataset / record.path, number * 7 % len(content), 0x01)
        assert {problem.file for problem in problems(dataset)} >= {record.path}
        (dataset / record.path).write_bytes(content)
    assert problems(dataset) == []


def test_a_truncated_file_is_named_at_every_length(dataset: Path) -> None:
    """Cut to 0 bytes, 1 byte, half, or one byte less: truncated, with both sizes."""
    content = (dataset / SHARD).read_bytes()
    for size in (0, 1, len(content) // 2, len(content) - 1):
        truncate(dataset / SHARD, size)
        assert places(dataset) == {("truncated", ARRAY, SHARD, None)}
        assert f"{size} bytes instead of {len(content)}" in problems(dataset)[0].what
        (dataset / SHARD).write_bytes(content)


def test_a_missing_file_is_named(dataset: Path) -> None:
    """Shards, tables and metadata alike."""
    (dataset / SHARD).unlink()
    (dataset / "items.parquet").unlink()
    assert places(dataset) == {("missing", ARRAY, SHARD, None), ("missing", "", "items.parquet", None)}


def test_swapped_shards_are_found_though_every_chunk_is_sound(dataset: Path) -> None:
    """Two swapped shard files pass every chunk checksum. The manifest shows it, and the problem names the
    other file."""
    other = f"{ARRAY}/c/0/0"
    (dataset / SHARD).rename(dataset / "aside")
    (dataset / other).rename(dataset / SHARD)
    (dataset / "aside").rename(dataset / other)
    found = problems(dataset)
    assert {problem.file for problem in found} == {SHARD, other}
    assert all(problem.chunk is None for problem in found)
    assert f"the content of {other}" in next(problem.what for problem in found if problem.file == SHARD)


def test_a_wrong_checksum_in_a_record_is_found(dataset: Path) -> None:
    """The files are sound, but reading them is an error, so verify must tell the reason."""
    set_shard_checksums(dataset, "00000000")
    found = problems(dataset)
    assert {problem.file for problem in found} == {
        record.path for record in load_manifest(dataset).files() if record.crc32c
    }
    assert all("the crc32c in its record is wrong" in problem.what for problem in found)


@pytest.mark.parametrize("name", [SHARD, f"{ARRAY}/c", "windows.zarr/training", "items.parquet"])
def test_a_link_is_refused_whatever_it_points_to(dataset: Path, tmp_path: Path, name: str) -> None:
    """A link to a file with the same bytes is a problem, too: the dataset would depend on files outside."""
    (dataset / name).rename(tmp_path / "elsewhere")
    (dataset / name).symlink_to(tmp_path / "elsewhere")
    found = problems(dataset)
    assert found
    assert all(problem.kind == "altered" for problem in found)
    assert any("link" in problem.what for problem in found)


def test_a_stray_link_is_named(dataset: Path) -> None:
    """A link that no record names is a problem, too, and is not followed."""
    (dataset / "windows.zarr" / "up").symlink_to("/")
    assert places(dataset) == {("altered", "", "windows.zarr/up", None)}


@pytest.mark.parametrize(
    "name", ["notes.txt", f"{ARRAY}/c/9/0", "windows.zarr/extra/zarr.json", f"{ARRAY}/c/.0.77.{'a' * 32}.tmp"]
)
def test_a_foreign_file_is_named_but_is_no_damage(dataset: Path, name: str) -> None:
    """Files that the manifest does not list are reported as foreign, once, at the highest folder that holds no other
    files."""
    (dataset / name).parent.mkdir(parents=True, exist_ok=True)
    (dataset / name).write_bytes(b"x")
    (found,) = problems(dataset)
    assert found.kind == "foreign"
    assert name.startswith(found.file)


def test_a_receipt_that_contradicts_the_manifest_is_named(dataset: Path) -> None:
    """Receipts decide what a rerun does again. An edited one is found; one of a later task is not foreign."""
    file = dataset / "receipts" / "window-training-0.json"
    values = json.loads(file.read_text())
    file.with_name("window-training-1.json").write_text(json.dumps({**values, "task": "window-training-1"}))
    assert problems(dataset) == []
    file.write_text(json.dumps({**values, "rows": 2}))
    assert places(dataset) == {("altered", "", "receipts/window-training-0.json", None)}


def test_a_manifest_that_leaves_a_shard_out_is_found(dataset: Path) -> None:
    """The number of shards is compared with the arrays' shapes: a shard without a receipt counts as missing."""

    def leave_out(values: dict[str, object]) -> None:
        for receipt in values["receipts"]:
            receipt["files"] = [file for file in receipt["files"] if file["path"] != SHARD]

    edit_manifest(dataset, leave_out)
    (dataset / "receipts" / "window-training-0.json").unlink()
    assert ("missing", ARRAY, f"{ARRAY}/zarr.json", None) in places(dataset)


def test_an_array_of_another_shape_than_the_manifest_says_is_found(dataset: Path) -> None:
    """The manifest's counts and the arrays' shapes must agree."""

    def add_windows(values: dict[str, object]) -> None:
        values["splits"]["training"]["windows"] = 29

    edit_manifest(dataset, add_windows)
    found = problems(dataset)
    assert len(found) == 7
    assert all("(21, 8)" in problem.what and "(29, 8)" in problem.what for problem in found)


def test_a_name_in_the_manifest_that_leads_outside_is_refused(dataset: Path) -> None:
    """A manifest may come from another person: `..` is never followed."""

    def lead_outside(values: dict[str, object]) -> None:
        values["receipts"][0]["files"][0]["path"] = "../../etc/passwd"

    edit_manifest(dataset, lead_outside)
    assert ("altered", "", "../../etc/passwd", None) in places(dataset)


def test_a_missing_receipt_is_named(dataset: Path) -> None:
    """Tasks that make windows compare histories with the receipts; without receipts they could not."""
    name = receipt_file(load_manifest(dataset).receipts[0].task)
    (dataset / name).unlink()
    assert places(dataset) == {("missing", "", name, None)}


def test_a_dataset_that_is_moved_meanwhile_is_an_error_with_the_remedy(dataset: Path) -> None:
    """Its files are not reported as missing."""
    checking = verify_steps(dataset)
    num_files = len(load_manifest(dataset).files())
    for _ in range(num_files):
        next(checking)
    dataset.rename(dataset.with_name("moved"))
    with pytest.raises(StorageError, match=r"moved or removed.*run verify again"):
        list(checking)


def test_no_manifest_a_damaged_one_and_a_newer_one_are_told_apart(dataset: Path) -> None:
    """No dataset is a wrong call (2), an unreadable manifest is damage (4), a newer format needs an upgrade (7)."""
    manifest = dataset / "dataset.json"
    text = manifest.read_text()
    edit_manifest(dataset, lambda values: values.update(format_version=99))
    with pytest.raises(FormatVersionError, match="99"):
        list(verify_steps(dataset))
    manifest.write_text(text[: len(text) // 2])
    with pytest.raises(DamagedError):
        list(verify_steps(dataset))
    manifest.unlink()
    with pytest.raises(ConfigError, match="build-shards"):
        list(verify_steps(dataset))


def test_an_edited_manifest_is_found(dataset: Path) -> None:
    """Its checksum covers values that no file contradicts: loss scales, times, configuration."""
    file = dataset / "dataset.json"
    values = json.loads(file.read_text("utf-8"))
    values["time_max"] += 1
    file.write_text(json.dumps(values), "utf-8")
    with pytest.raises(DamagedError, match="was altered: its checksum does not match"):
        load_manifest(dataset)
