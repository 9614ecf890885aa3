"""Restores the newest checkpoint of a run, the same one on every rank."""

from pathlib import Path
from typing import Any

from streamfeat.errors import FormatVersionError
from streamfeat.progress import Note
from train.devices.ranks import World
from train.runs.checkpoint import CHECKPOINT_VERSION, Checkpoint, Checkpoints, TrainState, read_checkpoint
from train.runs.folder import Run, check_checkpoint
from train.training.update import Updater


def restore(
    run: Run, world: World, updater: Updater, notes: list[Note]
) -> tuple[TrainState | None, Checkpoints | None]:
    """Loads the newest complete checkpoint into the model and its optimizer. Returns its state (None if the run has no
    checkpoint yet) and, on rank 0, the checkpoints. Adds messages for the user to `notes`.

    Raises the errors of `Checkpoints.load_newest` and `check_checkpoint`.
    """
    opened: list[Checkpoints] = []  # filled on rank 0 only, like the next one
    newest: list[Checkpoint] = []  # so that rank 0 reads it only once

    def found() -> dict[str, Any]:
        checkpoints = Checkpoints(run.path, run.config.keep)
        opened.append(checkpoints)
        checkpoint, problems = checkpoints.load_newest()
        if checkpoint is None:
            return {"path": None, "problems": problems}
        check_checkpoint(run, checkpoint)
        newest.append(checkpoint)
        return {"path": str(checkpoint.path), "problems": problems}

    facts = world.from_first(found)
    checkpoints = opened[0] if opened else None
    notes += [Note(f"damaged checkpoint: {problem}", warning=True) for problem in facts["problems"]]
    if facts["path"] is None:
        notes.append(Note(f"{run.path}: has no checkpoint yet; starting from step 0"))
        return None, checkpoints
    checkpoint = newest[0] if newest else read_checkpoint(facts["path"])
    if checkpoint.state.format_version == CHECKPOINT_VERSION:  # an older run is finished, or refused
        checkpoint.restore(updater.model, updater.optimizer, updater.average_model)
    notes.append(Note(f"resuming from {checkpoint.path}"))
    return checkpoint.state, checkpoints


def refuse_older(state: TrainState, checkpoint: Path) -> None:
    """Older versions trained by other rules, and had neither an average of the weights nor ratings beside the trunk."""
    if state.format_version < CHECKPOINT_VERSION:
        raise FormatVersionError(
            f"{checkpoint}: was saved by an older version of streamfeat, and a run cannot continue with this one; "
            "continue with that version, or start anew with --overwrite (evaluate and recommend work as they are)"
        )
