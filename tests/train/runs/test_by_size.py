"""Length, patience and rate of a run follow the data's size; what is typed wins; what was chosen is stored and said."""

from pathlib import Path
from typing import Any

import pytest

from streamfeat.progress import Note
from streamfeat.store.manifest import Manifest, load_manifest
from train.runs.by_size import by_size
from train.runs.record import read_record
from train.training.loop import train_steps
from train.training.progress import Finished

SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100}


def of_tokens(dataset: Path, tokens: int) -> Manifest:
    """The manifest of a dataset with so many training tokens in windows of 1,000."""
    manifest = load_manifest(dataset)
    training = manifest.splits["training"].model_copy(update={"tokens": tokens, "windows": max(1, tokens // 1000)})
    schema = manifest.data_schema.model_copy(update={"window_len": 1000})
    return manifest.model_copy(update={"splits": {**manifest.splits, "training": training}, "data_schema": schema})


@pytest.mark.parametrize(
    ("tokens", "epochs", "patience", "rate"),
    [
        (10_000, 64, 5, 4e-3),
        (100_000, 20, 5, 4e-3),
        (1_000_000, 15, 5, 4e-3),
        (100_000_000, 2, 2, 1.79e-3),
        (2_000_000_000, 1, 2, 5.66e-4),
    ],
)
def test_a_larger_set_gets_fewer_epochs_less_patience_and_a_lower_rate(
    tiny_dataset: Path, tokens: int, epochs: int, patience: int, rate: float
) -> None:
    """Down to one epoch; the rate falls only where a run has more steps than it was measured on."""
    chosen = by_size(of_tokens(tiny_dataset, tokens), {})
    assert (chosen["epochs"], chosen["patience"]) == (epochs, patience)
    assert chosen["learning_rate"] == pytest.approx(rate, rel=0.01)


def test_the_masked_objective_gets_more_epochs_and_more_patience(tiny_dataset: Path) -> None:
    """An epoch of it has a tenth of the targets."""
    chosen = by_size(of_tokens(tiny_dataset, 100_000), {"objective": "masked"})
    assert (chosen["epochs"], chosen["patience"]) == (100, 10)


def test_what_is_typed_wins_and_steps_leave_no_epochs_to_choose(tiny_dataset: Path) -> None:
    """Each option by itself."""
    manifest = of_tokens(tiny_dataset, 10**6)
    assert by_size(manifest, {"epochs": 3, "patience": 9, "learning_rate": 0.1}) == {}
    assert by_size(manifest, {"steps": 10}).keys() == {"patience", "learning_rate"}
    assert by_size(manifest, {"preset": "small"})["learning_rate"] == 1e-3


def test_a_run_says_and_stores_what_was_chosen(tmp_path: Path, tiny_dataset: Path) -> None:
    """And why it ended."""
    records = list(train_steps(tiny_dataset, tmp_path / "run", {**SMALL, "epochs": 2}))
    notes = [str(record) for record in records if isinstance(record, Note)]
    assert any("chosen by the data's size" in note and "--patience 5" in note for note in notes)
    assert not any("--epochs" in note for note in notes)
    assert read_record(tmp_path / "run").train.patience == 5
    last = records[-1]
    assert isinstance(last, Finished)
    assert last.reason.startswith("all ")


def test_a_run_that_stops_improving_says_so(tmp_path: Path, tiny_dataset: Path) -> None:
    """It names the step of its best validation."""
    options = {**SMALL, "learning_rate": 0.5, "patience": 1, "validate_every": 20, "epochs": 64}
    last = list(train_steps(tiny_dataset, tmp_path / "run", options))[-1]
    assert isinstance(last, Finished)
    assert last.best is not None
    assert f"no better than that of step {last.best.step}" in last.reason
