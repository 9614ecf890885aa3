"""The tables of training events in a run's folder: those that the model was trained with, or an error."""

from pathlib import Path
from typing import Any

import pytest

from streamfeat.errors import DamagedError
from train.inference.scorer import Scorer
from train.runs.checkpoint import Checkpoints
from train.terms.terms import TERMS
from train.training.loop import train_steps

GIVEN: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 4}


@pytest.fixture
def run(tmp_path: Path, tiny_dataset: Path) -> Path:
    """A run that stopped after its second step."""
    path, steps = tmp_path / "run", []
    for record in train_steps(tiny_dataset, path, GIVEN, stop=lambda: len(steps) > 1):
        if type(record).__name__ == "Stepped":
            steps.append(record)
    assert Checkpoints(path).load_newest()[0] is not None
    return path


def test_another_file_than_that_of_training_is_refused(run: Path, tiny_dataset: Path) -> None:
    """A flipped byte and the file of another dataset; by a run that goes on and by whoever asks the model."""
    content = bytearray((run / TERMS).read_bytes())
    content[-3] ^= 1
    (run / TERMS).write_bytes(content)
    with pytest.raises(DamagedError, match=r"terms\.safetensors.*resume"):
        Scorer.of_run(run)
    with pytest.raises(DamagedError, match=r"terms\.safetensors.*resume"):
        list(train_steps(tiny_dataset, run, resume=True))


def test_a_file_that_is_missing_is_made_again_to_the_bit(run: Path, tiny_dataset: Path) -> None:
    """By the run that goes on; until then the model cannot be asked."""
    content = (run / TERMS).read_bytes()
    (run / TERMS).unlink()
    with pytest.raises(DamagedError, match=r"terms\.safetensors"):
        Scorer.of_run(run)
    list(train_steps(tiny_dataset, run, resume=True))
    assert (run / TERMS).read_bytes() == content
    Scorer.of_run(run)


def test_a_run_that_is_overwritten_gets_tables_of_its_own(run: Path, tiny_dataset: Path) -> None:
    """The old ones are removed with the rest of the run."""
    (run / TERMS).write_bytes(b"old")
    list(train_steps(tiny_dataset, run, GIVEN, overwrite=True))
    Scorer.of_run(run)
