"""Exported features hold the stream's data with the original's names, after any interruption of the export."""

import hashlib
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented_events import invent_events, write_csv
from numpy.typing import NDArray
from reference_build import draw

from streamfeat import WindowStream, load_manifest
from streamfeat.builder.coordinator import Progress, build_shards
from streamfeat.errors import ConfigError, DamagedError, LockedError, MissingExtraError, StorageError
from streamfeat.export import Exported, export_steps
from streamfeat.store.locks import locked

Arrays = dict[str, NDArray[Any]]

CASES = [
    (objective, policy, split, epoch)
    for objective, policy in (("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed"))
    for split, epoch in (("training", 0), ("training", 3), ("validation", 3))
]
MASK_RATING = 12  # purpose of a draw
SPLITS = {"training": 0, "validation": 1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 250 training windows of 4 tokens in chunks of 2, the last one short, and shards of 96; two packings."""
    folder = tmp_path_factory.mktemp("exported")
    events = write_csv(folder / "events.csv", invent_events(seed=7, num_users=103, media={"anime": 30, "manga": 20}))
    manifest = build_shards([str(events)], folder / "data", window_len=4, split="users:0.2", packings=2,
                            chunk_windows=2, shard_windows=96)  # fmt: skip
    counts = manifest.splits["training"]
    assert counts.chunk_windows == 2
    assert counts.windows % 2
    assert counts.windows > 2 * 96
    return folder / "data"


@pytest.fixture(scope="module")
def exported(dataset: Path) -> Path:
    """Causal features of that dataset, for tests that copy them."""
    export(dataset, dataset.parent / "features")
    return dataset.parent / "features"


def export(dataset: Path, dest: Path, **options: Any) -> Exported:
    *_, finished = export_steps(dataset, dest, **({"objective": "causal", "seed": 3} | options))
    assert isinstance(finished, Exported)
    return finished


def read_with_xarray(dest: Path) -> tuple[Arrays, dict[str, Any]]:
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xarray.open_zarr(dest, consolidated=False, chunks=None).load()
    assert all(found[name].dims == ("window", "token") for name in found if name != "causal")
    return {name: found[name].to_numpy() for name in found}, found.attrs


def read_with_h5py(dest: Path) -> tuple[Arrays, dict[str, Any]]:
    h5py = pytest.importorskip("h5py")
    parts = []
    for shard in range(len(list(dest.iterdir()))):
        with h5py.File(dest / f"{shard}.h5") as file:
            parts.append({name: np.asarray(file[name]) for name in file})
            attributes = dict(file.attrs)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return arrays | {"causal": parts[0]["causal"]}, attributes


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def naive_features(dataset: Path, objective: str, policy: str, split: str, epoch: int, seed: int) -> Arrays:
    """The stream's data, window by window and token by token, with the names and codes of the original."""
    manifest = load_manifest(dataset)
    schema = manifest.data_schema
    stream = WindowStream(dataset, objective=objective, mask_policy=policy, split=split, batch_windows=4, seed=seed,
                          copy=True)  # type: ignore[arg-type]  # fmt: skip
    batches = [batch for _ in range(epoch + 1) for batch in stream][epoch * stream.steps_per_epoch :]
    rows = {int(batch["window"][r]): {name: batch[name][r] for name in batch} for batch in batches for r in range(4)}
    windows = [rows[w] for w in range(manifest.splits[split].windows)]  # type: ignore[index]
    state = seed, MASK_RATING, SPLITS[split], epoch if split == "training" else 0
    made: dict[str, list[list[float]]] = {}
    for number, window in enumerate(windows):
        tokens = [
            naive_token(manifest, objective, {name: values[t] for name, values in window.items() if values.ndim},
                        policy == "disjoint" or split == "validation" or draw(*state, number, t) >> 11 < 0.8 * 2**53)
            for t in range(schema.window_len)
        ]  # fmt: skip
        for name in tokens[0]:
            made.setdefault(name, []).append([token[name] for token in tokens])
    return {name: np.array(values) for name, values in made.items()}


def naive_token(manifest: Any, objective: str, token: dict[str, Any], masks_rating: bool) -> dict[str, float]:
    """One token, by the table of docs/format.md. `masks_rating`: whether a picked token's rating is masked."""
    schema = manifest.data_schema
    num_media = len(schema.media)
    sizes = np.diff(schema.medium_offsets).tolist()
    kind = {num_media: "cls", num_media + 1: "pad"}.get(int(token["medium"]), "event")
    picked = token["status"] == 7
    codes = {"cls": 0, "pad": 1}

    def number(value: float, known: bool, base: float, masked: bool) -> float:
        if kind != "event":
            return base + 1 + codes[kind]
        return float(value) if known else base + 3 if masked else base

    out: dict[str, float] = {}
    for m, name in enumerate(schema.media):
        if kind != "event":
            out[name] = sizes[m] + codes[kind]
        elif token["medium"] != m:
            out[name] = sizes[m] + 3
        else:
            out[name] = (
                sizes[m] + 2 if token["item"] == schema.num_items + 2 else token["item"] - schema.medium_offsets[m]
            )
        for task in ("item", "rating"):
            about = token["target_item"] - schema.medium_offsets[m]
            mine = token[f"weight_{task}"] > 0 and 0 <= about < sizes[m]
            out[f"positions_{name}_{task}"] = about if mine else 0
            out[f"weights_{name}_{task}"] = token[f"weight_{task}"] if mine else 0
            out[f"labels_{name}_{task}"] = 0 if not mine else 1 if task == "item" else token["target_rating"]
    out["rating"] = number(token["rating"], token["rating_known"], schema.rating_max + 1, picked and masks_rating)
    out["completion"] = number(token["completion"], token["completion_known"], 1, picked)
    span = manifest.time_max - manifest.time_min
    if objective == "masked":
        out["timestamp"] = number((token["time"] - manifest.time_min) / span, token["time_known"], 1, True)
    elif kind == "pad":
        out["timestamp"] = 3
    else:
        out["timestamp"] = (token["told_time"] - manifest.time_min) / span if token["told_time_known"] else 5
    return out | {name: token[name] for name in ("status", "user", "position")}


@pytest.mark.parametrize(
    ("objective", "policy", "split", "epoch"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[2:] == ("training", 0) else []) for case in CASES],
)
def test_features_are_what_the_stream_delivers_in_stored_order(
    dataset: Path, tmp_path: Path, objective: str, policy: str, split: str, epoch: int
) -> None:
    """Every array and value, as Zarr and as HDF5; epoch 3 of training reads packing 1, validation always epoch 0."""
    expected = naive_features(dataset, objective, policy, split, epoch, seed=3)
    options = {"objective": objective, "mask_policy": policy, "split": split, "epoch": epoch}
    export(dataset, tmp_path / "zarr", **options)
    export(dataset, tmp_path / "hdf5", hdf5=True, **options)
    for arrays, attributes in (read_with_xarray(tmp_path / "zarr"), read_with_h5py(tmp_path / "hdf5")):
        assert arrays["causal"].tolist() == [objective == "causal"]
        assert arrays["causal"].dtype == np.bool_
        assert arrays.keys() == expected.keys() | {"causal"}
        for name, values in expected.items():
            integer = name in ("anime", "manga", "status", "user", "position") or name.startswith("positions_")
            assert arrays[name].dtype == (np.int32 if integer else np.float32), name
            np.testing.assert_array_equal(arrays[name], values.astype(arrays[name].dtype), name)
        assert attributes["id_base"] == 0
        assert attributes["fingerprint"] == load_manifest(dataset).fingerprint
        assert (attributes["objective"], attributes["split"], attributes["seed"]) == (objective, split, 3)
        read = (0, 0) if split == "validation" else (epoch, epoch % 2)
        assert (attributes["epoch"], attributes["packing"]) == read
        assert attributes.get("mask_policy") == (None if objective == "causal" else policy)


def test_the_naive_features_meet_every_code(dataset: Path) -> None:
    """The comparison above covers all special values, including unrated, kept and masked ones."""
    seed_policy = naive_features(dataset, "masked", "seed", "training", 0, seed=3)
    top = load_manifest(dataset).data_schema.rating_max + 1
    assert {top, top + 1, top + 2, top + 3} <= set(seed_policy["rating"].ravel().tolist())
    assert {2.0, 3.0, 4.0} <= set(seed_policy["timestamp"].ravel().tolist())
    assert {4, 6} <= set(seed_policy["position"].ravel().tolist())
    kept_unrated = (seed_policy["status"] == 7) & (seed_policy["rating"] == top)
    assert kept_unrated.any()
    causal = naive_features(dataset, "causal", "disjoint", "training", 0, seed=3)
    assert {3.0, 5.0} <= set(causal["timestamp"].ravel().tolist())


@pytest.mark.slow
def test_two_workers_write_what_one_writes(dataset: Path, tmp_path: Path) -> None:
    """Byte for byte; the processes are spawned. Progress counts windows, and no other file is left."""
    export(dataset, tmp_path / "one")
    steps = list(export_steps(dataset, tmp_path / "two", objective="causal", seed=3, workers=2))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    progress = [step for step in steps if isinstance(step, Progress)]
    windows = load_manifest(dataset).splits["training"].windows
    assert (progress[0].done, progress[-1].done, progress[-1].total) == (0, windows, windows)
    assert isinstance(steps[-1], Exported)
    assert steps[-1].num_bytes == sum(path.stat().st_size for path in (tmp_path / "two").rglob("*") if path.is_file())
    assert steps[-1].num_shards > 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


KILLED = """
import os, signal, sys
from streamfeat.builder.coordinator import Progress
from streamfeat.export import export_steps
if __name__ == "__main__":
    done = 0
    for step in export_steps(sys.argv[1], sys.argv[2], objective="masked", workers=int(sys.argv[4]),
                                hdf5=sys.argv[5] == "True"):
        done += isinstance(step, Progress)
        if done > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("num_shards", "workers", "hdf5"),
    [(1, 2, True), *(pytest.param(n, 1, False, marks=pytest.mark.slow) for n in (0, 2))],
)
def test_a_killed_export_is_finished_by_the_same_call(
    dataset: Path, tmp_path: Path, num_shards: int, workers: int, hdf5: bool
) -> None:
    """SIGKILL after a number of shards: DEST does not exist until it is complete, and in the end no byte differs."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED, "utf-8")
    dest = tmp_path / "OUT"
    words = [sys.executable, script, dataset, dest, str(num_shards), str(workers), str(hdf5)]
    killed = subprocess.run(words, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not dest.exists()
    (tmp_path / ".OUT.export" / "features" / f".0.1.{'0' * 32}.tmp").write_bytes(b"half")
    options: dict[str, Any] = {"objective": "masked", "seed": 0, "hdf5": hdf5}
    steps = list(export_steps(dataset, dest, **options))
    assert isinstance(steps[0], Progress)
    assert bool(steps[0].done) == bool(num_shards)
    export(dataset, tmp_path / "undisturbed", **options)
    assert digests(dest) == digests(tmp_path / "undisturbed")
    assert not (tmp_path / ".OUT.export").exists()


def test_a_shard_whose_receipt_does_not_match_is_written_again(dataset: Path, tmp_path: Path) -> None:
    """A truncated file or a flipped bit makes its receipt invalid, also in a killed export."""
    steps = export_steps(dataset, tmp_path / "out", objective="causal", seed=3)
    for _ in range(4):
        next(steps)
    steps.close()
    hidden = tmp_path / ".out.export"
    os.truncate(hidden / "features/rating/c/0/0", 7)
    flipped = hidden / "features/user/c/1/0"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 3] ^= 1
    flipped.write_bytes(content)
    assert next(s for s in export_steps(dataset, tmp_path / "out", objective="causal", seed=3)).done == 65
    export(dataset, tmp_path / "out")
    export(dataset, tmp_path / "whole")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_the_same_call_again_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    """A finished export is up to date; one with a missing file is damaged."""
    for hdf5 in (False, True):
        dest = tmp_path / f"out{hdf5}"
        export(dataset, dest, hdf5=hdf5)
        before = digests(dest)
        assert export(dataset, dest, hdf5=hdf5).note == "up to date"
        assert digests(dest) == before
        (dest / ("1.h5" if hdf5 else "rating/c/1/0")).unlink()
        with pytest.raises(DamagedError, match="is missing; remove"):
            export(dataset, dest, hdf5=hdf5)


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(dataset: Path, tmp_path: Path) -> None:
    """Other options, other content, and an unfinished export with other options."""
    export(dataset, tmp_path / "features")
    before = digests(tmp_path)
    with pytest.raises(ConfigError, match="seed: there 3, now 4") as refused:
        export(dataset, tmp_path / "features", seed=4)
    assert "objective" not in str(refused.value)
    with pytest.raises(ConfigError, match="holds no features"):
        export(dataset, tmp_path / "features", hdf5=True)
    with pytest.raises(ConfigError, match="is inside the dataset"):
        export(dataset, dataset / "features")
    with pytest.raises(ConfigError, match="is a file"):
        export(dataset, dataset.parent / "events.csv")
    assert digests(tmp_path) == before
    steps = export_steps(dataset, tmp_path / "other", objective="causal")
    next(steps)
    steps.close()
    with pytest.raises(ConfigError, match=r"unfinished export,(.|\n)*epoch: there 0, now 1"):
        export(dataset, tmp_path / "other", seed=0, epoch=1)
    (tmp_path / "empty").mkdir()
    assert export(dataset, tmp_path / "empty").note == "exported"


HARMED = {
    "a truncated shard": ("user/c/0/0", b"cut short!", "has 10 bytes, too few for the index"),
    "a shard of another index": ("user/c/1/0", bytes(5000), "does not match its crc32c"),
    "no metadata of an array": ("user/zarr.json", None, r"no array here \(zarr.json is missing\)"),
    "metadata of another array": ("user/zarr.json", "rating/zarr.json", "describes another array"),
    "metadata of other values": ("user/zarr.json", (b'"cls_value": ', b'"cls_value": 1'), "describes another array"),
    "metadata that is none": ("user/zarr.json", b"[" * 100_000, "not readable as JSON"),
    "no flag": ("causal/c/0", None, "is missing"),
    "a truncated flag": ("causal/c/0", b"\1", "has 1 bytes, not 25"),
    "no metadata of the flag": ("causal/zarr.json", None, "is missing"),
    "metadata of the flag that is none": ("causal/zarr.json", b"", "not readable as JSON"),
}


@pytest.mark.parametrize("name", HARMED)
def test_features_that_are_not_whole_are_never_called_up_to_date(
    dataset: Path, exported: Path, tmp_path: Path, name: str
) -> None:
    """The error names a file that is missing, truncated or from another export, with the remedy."""
    file, content, message = HARMED[name]
    dest = tmp_path / "out"
    shutil.copytree(exported, dest)
    assert export(dataset, dest).note == "up to date"
    if isinstance(content, str):
        content = (dest / content).read_bytes()
    if isinstance(content, tuple):
        content = (dest / file).read_bytes().replace(*content)
    if content is None:
        (dest / file).unlink()
    else:
        (dest / file).write_bytes(content)
    with pytest.raises(DamagedError, match=rf"{file.partition('/')[0]}.*{message}.*; remove {dest} and export again$"):
        export(dataset, dest)


def test_hdf5_files_that_are_not_whole_are_never_called_up_to_date(dataset: Path, tmp_path: Path) -> None:
    """Truncated, damaged so that h5py raises errors, or of another export."""
    export(dataset, tmp_path / "out", hdf5=True)
    export(dataset, tmp_path / "other", hdf5=True, seed=4)
    last = tmp_path / "out/2.h5"
    sound = last.read_bytes()
    place = sound.index(b"time_origin_unix_seconds") + len("time_origin_unix_seconds")
    harmed = sound[:place] + b"\xff" * 24 + sound[place + 24 :]
    for content, message in (
        (sound[:-9], "cannot be read as HDF5"), (harmed, "cannot be read as HDF5|another export"),
        ((tmp_path / "other/2.h5").read_bytes(), "belongs to another export"),
    ):  # fmt: skip
        last.write_bytes(content)
        with pytest.raises(DamagedError, match=rf"2\.h5: ({message}).*export again"):
            export(dataset, tmp_path / "out", hdf5=True)


NO_OBJECT = (b"", b"{", b"[]", b"5", b'"x"', b"null", b"\xff", b"[" * 100_000)


@pytest.mark.parametrize("content", [*NO_OBJECT, b"{}", b'{"attributes": ["abc"]}', b'{"attributes": 5}', None])
def test_a_group_that_cannot_be_read_is_taken_for_something_else(
    dataset: Path, tmp_path: Path, content: bytes | None
) -> None:
    """It is an error and not changed, as for any other content; None is a folder of that name."""
    dest = tmp_path / "out"
    dest.mkdir()
    if content is None:
        (dest / "zarr.json").mkdir()
    else:
        (dest / "zarr.json").write_bytes(content)
    with pytest.raises(ConfigError, match="is not empty and holds no features"):
        export(dataset, dest)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("content", [*NO_OBJECT, b"{}", b'{"epoch": "last"}', None])
def test_an_unfinished_export_that_cannot_be_read_is_an_error_with_the_remedy(
    dataset: Path, tmp_path: Path, content: bytes | None
) -> None:
    """Its options are unknown, so no file in it is changed."""
    plan = tmp_path / ".out.export/export.json"
    plan.parent.mkdir()
    if content is None:
        os.mkfifo(plan)
    else:
        plan.write_bytes(content)
    (plan.parent / "mine").write_text("kept")
    with pytest.raises(DamagedError, match=r"\.out\.export/export\.json: .*(remove|does not hold a JSON object)"):
        export(dataset, tmp_path / "out")
    assert sorted(path.name for path in plan.parent.iterdir()) == [".lock", "export.json", "mine"]


def test_a_hidden_folder_that_somebody_removes_is_an_error_and_the_same_call_finishes(
    dataset: Path, exported: Path, tmp_path: Path
) -> None:
    """All of it or a part, while tasks run: an incomplete export is never published."""
    hidden = tmp_path / ".out.export"
    for removed, error, message in (
        (hidden, StorageError, "was removed by another program.*run the same command again"),
        (hidden / "features", DamagedError, rf"missing; remove {hidden} and export again"),
    ):
        steps = export_steps(dataset, tmp_path / "out", objective="causal", seed=3)
        next(steps)
        next(steps)
        shutil.rmtree(removed)
        with pytest.raises(error, match=message):
            list(steps)
        assert not (tmp_path / "out").exists()
    export(dataset, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(exported)


def test_a_place_where_no_folder_can_be_is_an_error_with_the_remedy(dataset: Path, tmp_path: Path) -> None:
    """Folders of the kernel, links that lead back to themselves, names that are too long, files in the path."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    (tmp_path / ".taken.export").write_text("")
    for dest, error, message in (
        ("/proc/out", StorageError, "cannot make this folder.*give another DEST"),
        (tmp_path / "loop/out", ConfigError, "leads back to itself"),
        (tmp_path / ("n" * 300), StorageError, "File name too long"),
        (tmp_path / ("n" * 250), StorageError, "File name too long"),
        (tmp_path / "file/out", ConfigError, "this path or a part of it is a file; move it away"),
        (tmp_path / "taken", ConfigError, "this path or a part of it is a file; move it away"),
    ):
        with pytest.raises(error, match=message):
            export(dataset, Path(dest))


def test_what_a_lost_worker_left_is_not_published(dataset: Path, exported: Path, tmp_path: Path) -> None:
    """The temporary file of a write that was interrupted in the same call."""
    dest = tmp_path / "out"
    steps = export_steps(dataset, dest, objective="causal", seed=3)
    next(steps)
    next(steps)
    (tmp_path / ".out.export/features/user/c/1").mkdir(exist_ok=True)
    (tmp_path / f".out.export/features/user/c/1/.0.1.{'0' * 32}.tmp").write_bytes(b"half")
    *_, finished = steps
    assert digests(dest) == digests(exported)
    assert isinstance(finished, Exported)
    assert finished.num_bytes == sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())


def test_a_finished_export_removes_its_own_hidden_folder_alone(dataset: Path, exported: Path, tmp_path: Path) -> None:
    """That is a folder left by a kill just after the rename."""
    dest, hidden = tmp_path / "out", tmp_path / ".out.export"
    shutil.copytree(exported, dest)
    hidden.mkdir()
    (hidden / "mine").write_text("kept")
    assert export(dataset, dest).note == "up to date"
    assert (hidden / "mine").read_text() == "kept"
    (hidden / "export.json").write_text("{}")
    assert export(dataset, dest).note == "up to date"
    assert not hidden.exists()


def test_a_second_process_is_told_who_exports_here(dataset: Path, tmp_path: Path) -> None:
    """The error of the lock names the process."""
    (tmp_path / ".out.export").mkdir()
    with (
        locked(tmp_path / ".out.export", "exports"),
        pytest.raises(LockedError, match=f"process {os.getpid()} .* exports here"),
    ):
        export(dataset, tmp_path / "out")


def test_wrong_options_are_refused(dataset: Path, tmp_path: Path) -> None:
    """Before any file is created."""
    for options in ({"objective": "both"}, {"epoch": -1}, {"seed": -1}, {"mask_policy": "none"}, {"split": "test"},
                    {"workers": 0}):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(options))):
            export(dataset, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_medium_that_is_called_like_a_feature_is_refused(tmp_path: Path) -> None:
    """Two arrays cannot have the same name."""
    (tmp_path / "e.csv").write_text("user,item,medium,timestamp\n1,1,timestamp,1400000000\n2,1,timestamp,1400000000\n")
    build_shards([str(tmp_path / "e.csv")], tmp_path / "data", window_len=4, split="users:0.5")
    with pytest.raises(ConfigError, match="'timestamp' has the name of another array"):
        export(tmp_path / "data", tmp_path / "out")


def test_without_h5py_the_extra_is_named(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is one command."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[hdf5\]"):
        export(dataset, tmp_path / "out", hdf5=True)
    assert list(tmp_path.iterdir()) == []


def test_special_values_stand_in_the_attributes(dataset: Path, tmp_path: Path) -> None:
    """A reader needs only the attributes."""
    export(dataset, tmp_path / "out", objective="masked")
    schema = load_manifest(dataset).data_schema
    sizes = np.diff(schema.medium_offsets).tolist()
    expected = {
        **dict(zip(schema.media, sizes, strict=True)), "status": 5, "user": schema.num_users, "position": 4,
        "rating": schema.rating_max + 2, "timestamp": 2.0, "completion": 2.0,
    }  # fmt: skip
    for name, first in expected.items():
        said = json.loads((tmp_path / "out" / name / "zarr.json").read_text())["attributes"]
        found = [said[f"{token}_value"] for token in ("cls", "pad", "mask", "empty")]
        assert found == [first, first + 1, first + 2, first + 3]
        assert said["long_name"]
        assert math.isclose(said.get("unrated_value", 0), schema.rating_max + 1 if name == "rating" else 0)
