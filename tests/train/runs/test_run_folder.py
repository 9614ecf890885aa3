"""The folder of a run: whose it is, what may go on in it, and what is refused with both values."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edited_manifests import edit_manifest

from streamfeat.errors import ConfigError, DamagedError, FormatVersionError, LockedError, StreamfeatError
from streamfeat.store.locks import locked
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from train.config import FREE_ON_RESUME, PRESETS, ModelConfig, TrainConfig, new_config
from train.inference.scorer import Scorer
from train.runs.folder import open_run
from train.runs.options import resumed_config
from train.runs.record import dataset_of, read_record
from train.training.loop import train_steps

TINY: dict[str, Any] = {"layers": 1, "width": 8, "heads": 1, "batch_tokens": 64, "steps": 1}

OTHER = {    "hidden_times": 0.2,
  # another value of each field than the default preset has
    "objective": "masked", "mask_policy": "seed", "preset": "base", "layers": 5, "width": 96, "heads": 1,
    "feed_forward": 3.0, "dropout": 0.55, "batch_tokens": 77, "micro_batch_tokens": 33, "steps": 7, "epochs": 9,
    "optimizer": "adamw", "learning_rate": 0.5, "beta_1": 0.5, "beta_2": 0.5, "weight_decay": 0.5, "clip": 0.5,
    "ema": 0.5, "final_learning_rate": 0.5, "validate_every": 3, "checkpoint_every": 3, "seed": 5, "threads": 2,
    "warm_up_steps": 7, "decay_share": 0.5, "keep": 5, "monitor": "anime_watch", "patience": 9, "live": True,
    "live_disk": 10**8, "live_workers": 3, "live_timeout": 60.0,
}  # fmt: skip


def start(dataset: Path, run: Path, **given: Any) -> None:
    with open_run(dataset, run, given) as opened:
        opened.begin()


def test_the_record_is_there_once_a_run_begins(tmp_path: Path, tiny_dataset: Path) -> None:
    """config.json holds the configuration, the dataset's place and its fingerprint."""
    with open_run(tiny_dataset, tmp_path / "run", {"seed": 3, "layers": 1}) as run:
        assert not (run.path / "config.json").exists()
        run.begin()
        record = read_record(run.path)
    assert record.train == run.config
    assert (record.train.seed, record.train.model.layers) == (3, 1)
    assert record.dataset == str(tiny_dataset.resolve())
    assert record.fingerprint == load_manifest(tiny_dataset).fingerprint


def test_a_run_needs_its_dataset_no_more_to_know_its_items(tmp_path: Path, tiny_dataset: Path) -> None:
    """The manifest (without receipts) and the table of items are copied."""
    start(tiny_dataset, tmp_path / "run")
    copied, original = load_manifest(tmp_path / "run/dataset"), load_manifest(tiny_dataset)
    assert copied == original.model_copy(update={"receipts": ()})
    assert read_items(tmp_path / "run/dataset").raw_id == read_items(tiny_dataset).raw_id


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_overridden_by_what_is_given(preset: str) -> None:
    """Every field can be given; what is not given is the preset's."""
    assert new_config({"preset": preset}).model.width == PRESETS[preset]["width"]  # type: ignore[index]
    config = new_config({"preset": preset, "learning_rate": 0.5, "layers": 3})
    assert (config.learning_rate, config.model.layers) == (0.5, 3)
    assert config.model.heads == PRESETS[preset]["heads"]  # type: ignore[index]


def test_the_list_of_other_values_covers_every_option() -> None:
    """A new field must be added to the tests below."""
    assert OTHER.keys() == (TrainConfig.model_fields.keys() - {"model"}) | ModelConfig.model_fields.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "huge"}, "tiny, small, base"),
        ({"steps": 5, "epochs": 2}, "contradict"),
        ({"heads": 3}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"learnign_rate": 1}, "did you mean 'learning_rate'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    """With the name, what was given, and what would do."""
    with pytest.raises(ConfigError, match=message):
        new_config(given)


@pytest.mark.parametrize("name", OTHER)
def test_another_value_on_resume_is_refused_with_both_or_free(tmp_path: Path, name: str) -> None:
    """Whatever changes a number is refused; what changes none is taken."""
    saved = new_config({})
    flat = {**saved.model_dump(), **saved.model.model_dump()}
    if name in FREE_ON_RESUME:
        assert getattr(resumed_config(tmp_path, saved, {name: OTHER[name]}), name) == OTHER[name]
        return
    option = "--" + name.replace("_", "-")
    with pytest.raises(ConfigError) as error:
        resumed_config(tmp_path, saved, {name: OTHER[name]})
    assert f"{option}: saved {flat[name]}, given {OTHER[name]}" in str(error.value)


def test_the_same_value_on_resume_is_fine(tmp_path: Path) -> None:
    """A command that is repeated with --resume added goes on, whatever the preset's defaults are."""
    given = {"preset": "small", "width": 96, "heads": 3, "steps": 10}
    saved = new_config(given)
    assert resumed_config(tmp_path, saved, given) == saved
    assert resumed_config(tmp_path, saved, {"heads": 3}) == saved
    assert resumed_config(tmp_path, saved, {}) == saved


def test_what_is_free_is_saved_anew(tmp_path: Path, tiny_dataset: Path) -> None:
    """The record says how the run goes on, too."""
    start(tiny_dataset, tmp_path / "run", seed=3)
    with open_run(tiny_dataset, tmp_path / "run", {"threads": 2}, resume=True) as run:
        assert run.resumed
        assert (run.config.threads, run.config.seed) == (2, 3)
        assert read_record(run.path).train != run.config  # a run that cannot go on stays as it was
        run.begin()
    assert read_record(tmp_path / "run").train == run.config


def test_a_folder_that_holds_a_run_is_refused_without_resume_or_overwrite(tmp_path: Path, tiny_dataset: Path) -> None:
    """Both remedies are named, and nothing changes."""
    start(tiny_dataset, tmp_path / "run", seed=3)
    before = (tmp_path / "run/config.json").read_bytes()
    with pytest.raises(ConfigError, match=r"--resume.*--overwrite"):
        start(tiny_dataset, tmp_path / "run")
    assert (tmp_path / "run/config.json").read_bytes() == before
    with pytest.raises(ConfigError, match="one of them"), open_run(
        tiny_dataset, tmp_path / "run", {}, resume=True, overwrite=True
    ):  # fmt: skip
        pass


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(tmp_path: Path, tiny_dataset: Path) -> None:
    """Checkpoints and metrics of the old run would be taken for the new one's."""
    run = tmp_path / "run"
    start(tiny_dataset, run, seed=3)
    (run / "checkpoints/step-00000001").mkdir(parents=True)
    for name in ("metrics.jsonl", "latest", "notes.txt"):
        (run / name).write_text("old")
    with open_run(tiny_dataset, run, {"seed": 4}, overwrite=True) as opened:
        assert not opened.resumed
        assert (run / "metrics.jsonl").exists()  # until nothing stands in the new run's way
        opened.begin()
    names = [".lock", ".streamfeat", "config.json", "dataset", "notes.txt"]
    assert sorted(path.name for path in run.iterdir()) == names
    assert read_record(run).train.seed == 4


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, tiny_dataset: Path, resume: bool, overwrite: bool
) -> None:
    """Not even --overwrite deletes what no run wrote; checkpoints without config.json are not ours to judge."""
    for name in ("thesis.tex", "checkpoints"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("years of work")
        with pytest.raises(ConfigError, match=r"is not empty|one of them"), open_run(
            tiny_dataset, folder, {}, resume=resume, overwrite=overwrite
        ):  # fmt: skip
            pass
        assert [path.name for path in folder.iterdir()] == [name]
    with pytest.raises(ConfigError, match="is a file"):
        start(tiny_dataset, tmp_path / "thesis.tex/thesis.tex")


@pytest.mark.parametrize("config", ['{"model_type": "bert"}', "no JSON", None])
def test_another_program_s_model_folder_is_no_run(tmp_path: Path, tiny_dataset: Path, config: str | None) -> None:
    """Others have a config.json, a `checkpoints` and a `dataset`, too: nothing of theirs is removed or replaced."""
    folder = tmp_path / "hf"
    for name in ("model.safetensors", "checkpoints/mine.pt", "dataset/mine.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    if config is not None:
        (folder / "config.json").write_text(config)
    else:
        shutil.rmtree(folder / "checkpoints")
        (folder / "model.safetensors").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ConfigError, match="is not empty and does not hold a run"):
            list(train_steps(tiny_dataset, folder, TINY, **flags))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("proof", [".streamfeat", "config.json"])
def test_the_marker_or_the_record_makes_a_folder_a_run(tmp_path: Path, tiny_dataset: Path, proof: str) -> None:
    """The marker is written first; runs of earlier versions have none, and get one."""
    run = tmp_path / "run"
    start(tiny_dataset, run)
    assert json.loads((run / ".streamfeat").read_text())["holds"] == "run"
    for name in {".streamfeat", "config.json"} - {proof}:
        (run / name).unlink()
    with open_run(tiny_dataset, run, {}, overwrite=True) as opened:
        opened.begin()
    assert {".streamfeat", "config.json"} <= {path.name for path in run.iterdir()}


def test_overwriting_leaves_what_is_not_ours_in_a_run_s_folders(tmp_path: Path, tiny_dataset: Path) -> None:
    """Only names that a run gives are removed there."""
    run = tmp_path / "run"
    start(tiny_dataset, run, seed=3)
    ours = ("checkpoints/step-00000007/state.json", "tensorboard/events.out.tfevents.1.host.1.0")
    mine = ("checkpoints/mine.pt", "checkpoints/step-7/x", "dataset/mine.csv", "tensorboard/mine.png")
    for name in (*ours, *mine):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("old")
    with open_run(tiny_dataset, run, {}, overwrite=True) as opened:
        opened.begin()
    assert [name for name in (*ours, *mine) if (run / name).exists()] == list(mine)


@pytest.mark.parametrize("name", ["run", "a/b/run"])
def test_a_refused_run_leaves_no_folder(tmp_path: Path, tiny_dataset: Path, name: str) -> None:
    """Neither where options are refused, nor where the data is, nor the memory; a folder that was there stays."""
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_dataset, damaged)
    (damaged / "items.parquet").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    calls: tuple[tuple[Path, dict[str, Any]], ...] = (
        (tiny_dataset, {"width": 10**9}), (tiny_dataset, {"live_workers": 2}), (damaged, {}),
    )  # fmt: skip
    for dataset, given in calls:
        with pytest.raises(StreamfeatError):
            start(dataset, tmp_path / name, **given)
        assert sorted(tmp_path.iterdir()) == before
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(StreamfeatError):
        start(tiny_dataset, tmp_path / name, width=10**9)
    assert list((tmp_path / name).iterdir()) == []


def test_a_lock_whose_folder_was_removed_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would hold two locks of one name: the file is removed between opening and locking it."""
    monkeypatch.setattr("fcntl.flock", lambda *_: (tmp_path / ".lock").unlink())
    with pytest.raises(LockedError, match="run the same command again"), locked(tmp_path, "trains"):
        pass


def test_resuming_nothing_starts_a_run(tmp_path: Path, tiny_dataset: Path) -> None:
    """The same command line serves the first start and every later one."""
    with open_run(tiny_dataset, tmp_path / "run", {"seed": 3}, resume=True) as run:
        assert not run.resumed
        assert run.config.seed == 3


def test_another_dataset_is_refused_with_both_fingerprints_and_what_differs(tmp_path: Path, tiny_dataset: Path) -> None:
    """The position in the data would mean other events. A dataset that moved is the same."""
    start(tiny_dataset, tmp_path / "run")
    moved = tmp_path / "moved"
    shutil.copytree(tiny_dataset, moved)
    with open_run(moved, tmp_path / "run", {}, resume=True) as run:
        assert run.resumed
    before, num_events = load_manifest(moved).fingerprint, load_manifest(moved).num_events

    def change(values: dict[str, Any]) -> None:
        values["fingerprint"], values["num_events"] = "0" * 64, values["num_events"] + 1

    edit_manifest(moved, change)
    with pytest.raises(ConfigError) as error, open_run(moved, tmp_path / "run", {}, resume=True):
        pass
    assert f"fingerprint: saved {before}, now {'0' * 64}" in str(error.value)
    assert f"num_events: saved {num_events}, now {num_events + 1}" in str(error.value)


def test_two_processes_never_train_in_one_folder(tmp_path: Path, tiny_dataset: Path) -> None:
    """The second is told whose it is, and the lock of a process that was killed is free."""
    code = (
        "import os, sys; from train.runs.folder import open_run\n"
        "with open_run(sys.argv[1], sys.argv[2], {}) as run:\n"
        "    run.begin()\n"
        "    print(os.getpid(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tiny_dataset), str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        with pytest.raises(LockedError, match=f"process {pid} "):
            start(tiny_dataset, tmp_path / "run")
        child.kill()
    with open_run(tiny_dataset, tmp_path / "run", {}, resume=True) as run:
        assert run.resumed


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", DamagedError),
        (b"{", DamagedError),
        (b"[]", DamagedError),
        (b'{"format_version": 1}', DamagedError),
        (b'{"format_version": 99}', FormatVersionError),
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(
    tmp_path: Path, tiny_dataset: Path, content: bytes, error: type[StreamfeatError]
) -> None:
    """Never a run from step 0 because its record broke."""
    start(tiny_dataset, tmp_path / "run")
    (tmp_path / "run/config.json").write_bytes(content)
    with pytest.raises(error, match=r"config\.json"), open_run(tiny_dataset, tmp_path / "run", {}, resume=True):
        pass


def test_a_dataset_that_cannot_be_reached_is_not_there(tmp_path: Path, tiny_dataset: Path) -> None:
    """Where config.json names a path that no file system has."""
    start(tiny_dataset, tmp_path / "run")
    file = tmp_path / "run/config.json"
    file.write_text(file.read_text().replace(str(tiny_dataset.resolve()), "x" * 5000))
    with pytest.raises(ConfigError, match="which does not exist; give its folder with --dataset"):
        dataset_of(tmp_path / "run", None)


def test_a_dataset_whose_place_cannot_be_recorded_is_refused(tmp_path: Path, tiny_dataset: Path) -> None:
    """JSON holds no other bytes than UTF-8."""
    place = tmp_path / "\udcff/data"
    shutil.copytree(tiny_dataset, place)
    with pytest.raises(ConfigError, match="a path that is not UTF-8 cannot be recorded"):
        start(place, tmp_path / "run")


@pytest.mark.parametrize("harm", ["gone", "damaged", "a file in its place"])
@pytest.mark.parametrize("name", ["dataset.json", "items.parquet"])
def test_what_a_run_keeps_of_its_dataset_is_written_again_on_resume(
    tmp_path: Path, tiny_dataset: Path, name: str, harm: str
) -> None:
    """That is what its absence says; build-shards, which makes a dataset, would be the wrong remedy."""
    run = tmp_path / "run"
    for _ in train_steps(tiny_dataset, run, TINY):
        pass
    content = {path.name: path.read_bytes() for path in (run / "dataset").iterdir()}
    if harm == "damaged":
        (run / "dataset" / name).write_bytes(b"PAR1")
    elif harm == "gone":
        (run / "dataset" / name).unlink()
    else:
        shutil.rmtree(run / "dataset")
        (run / "dataset").write_bytes(b"")
    with pytest.raises(DamagedError, match="or run `train --resume`, which writes them again"):
        Scorer.of_run(run)
    if harm == "a file in its place":
        (run / "dataset").unlink()
    for _ in train_steps(tiny_dataset, run, {}, resume=True):
        pass
    assert {path.name: path.read_bytes() for path in (run / "dataset").iterdir()} == content


def test_a_file_in_place_of_the_checkpoints_is_damage(tmp_path: Path, tiny_dataset: Path) -> None:
    """It is not the disk that has to be looked after."""
    run = tmp_path / "run"
    start(tiny_dataset, run)
    (run / "checkpoints").write_bytes(b"")
    with pytest.raises(DamagedError, match="a file instead of a folder"):
        list(train_steps(tiny_dataset, run, {}, resume=True))
