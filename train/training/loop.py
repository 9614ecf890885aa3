"""Training, as a recipe: it yields what happens and never prints."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from streamfeat.errors import require_extra
from streamfeat.progress import Note, Progress
from train.devices.device import exact_arithmetic
from train.devices.memory import told_what_to_lower
from train.devices.ranks import joined
from train.runs.folder import open_run_together
from train.training.progress import Stopped, TrainingReport
from train.training.session import open_session


def never() -> bool:
    """The `stop` of a run that no one stops."""
    return False


def train_steps(
    dataset: str | Path,
    run: str | Path,
    given: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    tensorboard: bool = False,
    stop: Callable[[], bool] = never,
) -> Iterator[TrainingReport]:
    """Train a model on `dataset` in the folder `run`; yields progress, at last `Finished` or `Stopped`.

    `given` are options by name, the fields of `TrainConfig` and `ModelConfig`; what is not given is the
    preset's or, with `resume`, as saved. `force` starts a run that seems to need more memory than there is. Once
    `stop` says so, the current step is finished and saved. Started by torchrun, every rank calls this alike; what is
    yielded is the same on all of them, but that rank 0 alone saves. Raises the errors of `streamfeat.errors`.
    """
    if tensorboard:
        require_extra("tensorboard", "tensorboard", "--tensorboard")
    with (
        exact_arithmetic(),
        joined() as world,
        open_run_together(world, dataset, run, given or {}, resume=resume, overwrite=overwrite) as opened,
        told_what_to_lower(opened.config, opened.manifest.data_schema.window_len, world),
        open_session(opened, world, stop=stop, tensorboard=tensorboard, force=force) as session,
    ):
        if resume and not opened.resumed:
            yield Note(f"{run}: no run to resume; starting from step 0")
        yield from session.notes
        if session.started is None:
            yield Stopped(session.step)
            return
        yield session.started
        yield Note(str(session.started))
        yield Progress("training", session.step, session.num_steps, "steps")
        while True:
            if session.validation_is_due:  # also of a run that was stopped before it, or in the middle of it
                yield from session.validate(stop)
            if session.checkpoint_is_due:
                yield from session.save()
            if not (yield from session.may_go_on(stop)):
                break
            stepped = yield from session.advance()
            yield Progress("training", session.step, session.num_steps, "steps", str(stepped))
        if not session.is_saved:
            yield from session.save()
        yield session.ended()
