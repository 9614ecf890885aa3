"""A dry run measures and keeps nothing."""

from pathlib import Path

import pytest

from streamfeat.errors import StorageError
from train.training.dry_run import Estimate, dry_run_steps
from train.training.loop import train_steps
from train.training.progress import Started, Stepped, Stopped

GIVEN = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_dry_run_times_ten_steps_and_keeps_nothing(tiny_dataset: Path) -> None:
    """Nothing is written beside the dataset, and the numbers are those of the run that it outlines."""
    before = files(tiny_dataset.parent)
    records = list(dry_run_steps(tiny_dataset, {**GIVEN, "epochs": 9}))
    estimate = records[-1]
    assert files(tiny_dataset.parent) == before
    assert isinstance(estimate, Estimate)
    assert sum(isinstance(record, Stepped) for record in records) == 13
    assert (estimate.timed_steps, estimate.num_steps, estimate.steps_per_epoch) == (10, 54, 6)
    assert estimate.training_s == pytest.approx(54 * estimate.step_s)
    assert estimate.step_s > 0
    assert estimate.weight_bytes == 4 * estimate.num_parameters == estimate.gradient_bytes
    assert (
        estimate.weight_bytes < estimate.optimizer_bytes < 2 * estimate.weight_bytes + 4096
    )  # two moments of AdamW, one of matrices
    assert estimate.peak_bytes > 10**8  # torch alone takes more


def test_a_dry_run_tells_what_training_tells(tmp_path: Path, tiny_dataset: Path) -> None:
    """The same steps, parameters and batches as the run says when it starts."""
    estimate = list(dry_run_steps(tiny_dataset, {**GIVEN, "steps": 2}))[-1]
    records = train_steps(tiny_dataset, tmp_path / "run", {**GIVEN, "steps": 2})
    started = next(record for record in records if isinstance(record, Started))
    records.close()  # type: ignore[attr-defined]
    assert isinstance(estimate, Estimate)
    for name in ("num_parameters", "num_steps", "steps_per_epoch", "batch_windows", "micro_batch_windows"):
        assert getattr(estimate, name) == getattr(started, name)


def test_a_dry_run_that_is_stopped_gives_no_figure(tiny_dataset: Path) -> None:
    """Nothing measured is better than a wrong measure."""
    asked: list[bool] = []
    records = []
    for record in dry_run_steps(tiny_dataset, GIVEN, stop=lambda: bool(asked)):
        records.append(record)
        asked.append(True)
    assert not any(isinstance(record, Estimate) for record in records)
    assert isinstance(records[-1], Stopped)


@pytest.mark.usefixtures("one_thread")
def test_a_run_shorter_than_ten_steps_is_timed_on_what_it_has(tiny_dataset: Path) -> None:
    """One step, or five."""
    for steps, timed in ((1, 1), (5, 2)):
        estimate = list(dry_run_steps(tiny_dataset, {**GIVEN, "steps": steps}))[-1]
        assert isinstance(estimate, Estimate)
        assert estimate.timed_steps == timed


def test_a_machine_without_a_temporary_folder_is_told_what_to_set(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only or full root partition."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="set TMPDIR to one that has space"):
        list(dry_run_steps(tiny_dataset, GIVEN))
