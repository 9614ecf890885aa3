"""Checkpoints on another disk, behind a symbolic link; no link is followed below it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from streamfeat.errors import ConfigError, DamagedError, StorageError
from train.evaluation.evaluate import evaluate_steps
from train.inference.scorer import Scorer
from train.runs.checkpoint import read_checkpoint
from train.training.loop import train_steps

TINY: dict[str, Any] = {"layers": 1, "width": 8, "heads": 1, "batch_tokens": 64, "steps": 2, "threads": 1}
MODEL = "checkpoints/step-00000002/model.safetensors"


def train(dataset: Path, run: Path, **flags: bool) -> None:
    for _ in train_steps(dataset, run, TINY, **flags):
        pass


def linked(run: Path) -> Path:
    """An empty folder that `run/checkpoints` leads to."""
    disk = run.parent / "disk"
    disk.mkdir()
    run.mkdir()
    (run / "checkpoints").symlink_to(disk)
    return disk


def test_a_run_with_checkpoints_behind_a_link_trains_resumes_evaluates_and_starts_anew(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    """To the same weights as without; the link stays, and so does what else lies behind it."""
    train(tiny_dataset, tmp_path / "plain")
    run = tmp_path / "run"
    disk = linked(run)
    stopped = iter([False, True])
    for _ in train_steps(tiny_dataset, run, TINY, stop=lambda: next(stopped, True)):
        pass
    assert not (disk / "step-00000002").exists()
    train(tiny_dataset, run, resume=True)
    assert (disk / "step-00000002").is_dir()
    assert (run / MODEL).read_bytes() == (tmp_path / "plain" / MODEL).read_bytes()
    Scorer.of_run(run)
    assert list(evaluate_steps(run, tiny_dataset))
    (disk / "precious").write_text("mine")
    (disk / f".step-00000001.7.{'a' * 32}.tmp").mkdir()
    train(tiny_dataset, run, overwrite=True)
    assert (run / "checkpoints").is_symlink()
    assert (disk / "precious").read_text() == "mine"
    assert not list(disk.glob("*.tmp"))
    assert (run / MODEL).read_bytes() == (tmp_path / "plain" / MODEL).read_bytes()


def test_a_folder_with_anything_in_it_is_no_place_for_a_new_run_s_checkpoints(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    """They may be another run's."""
    train(tiny_dataset, tmp_path / "other")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "other/checkpoints")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="is not empty and does not hold a run"):
            train(tiny_dataset, tmp_path / "run", overwrite=overwrite)
    assert (tmp_path / "other" / MODEL).exists()


def test_another_run_s_checkpoints_behind_a_link_are_not_touched(tmp_path: Path, tiny_dataset: Path) -> None:
    """Not by --overwrite nor by --resume, once the link of a run leads elsewhere."""
    train(tiny_dataset, tmp_path / "other")
    disk = linked(tmp_path / "run")
    train(tiny_dataset, tmp_path / "run")
    (tmp_path / "run/checkpoints").unlink()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "other/checkpoints")
    for flags in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(ConfigError, match="not the one of this run's checkpoints"):
            train(tiny_dataset, tmp_path / "run", **flags)
    read_checkpoint(tmp_path / "other/checkpoints/step-00000002")
    (tmp_path / "run/checkpoints").unlink()
    (tmp_path / "run/checkpoints").symlink_to(disk)
    train(tiny_dataset, tmp_path / "run", overwrite=True)


def test_checkpoints_behind_a_link_that_leads_nowhere_are_an_error_with_the_remedy(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    """A new run, one that goes on, one that is replaced, one that is asked: the disk may only be absent."""
    run = tmp_path / "run"
    disk = linked(run)
    disk.rmdir()
    with pytest.raises(StorageError, match="mount its disk"):
        train(tiny_dataset, run)
    disk.mkdir()
    train(tiny_dataset, run)
    disk.rename(tmp_path / "away")
    for flags in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(StorageError, match="mount its disk"):
            train(tiny_dataset, run, **flags)
    with pytest.raises(StorageError, match="mount its disk"):
        Scorer.of_run(run)
    (tmp_path / "away").rename(disk)
    Scorer.of_run(run)


def test_no_link_is_followed_behind_a_link(tmp_path: Path, tiny_dataset: Path) -> None:
    """Neither in place of a checkpoint nor of a file in one."""
    run = tmp_path / "run"
    disk = linked(run)
    train(tiny_dataset, run)
    for name in ("step-00000002/model.safetensors", "step-00000002"):
        shutil.move(disk / name, tmp_path / "outside")
        (disk / name).symlink_to(tmp_path / "outside")
        with pytest.raises(DamagedError, match="link"):
            read_checkpoint(run / "checkpoints/step-00000002")
        (disk / name).unlink()
        shutil.move(tmp_path / "outside", disk / name)
    read_checkpoint(run / "checkpoints/step-00000002")
