"""The training loop. It yields what happens and never prints."""

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
    """The default of `stop`: never stop."""
    return False


def train_steps(
    dataset: str | Path,
    run: str | Path,
    given: Mapping[str, Any] | None = None,
    *,
    start_from: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    tensorboard: bool = False,
    stop: Callable[[], bool] = never,
) -> Iterator[TrainingReport]:
    """Trains a model on `dataset` in the folder `run`; yields progress and, last, `Finished` or `Stopped`.

    `given` are options by name: fields of `TrainConfig` and `ModelConfig`. Other options come from the preset or, with
    `resume`, from the saved run. With `start_from`, the folder of another run, a new run starts with the weights of
    that run's best checkpoint, and other options come from that run. `force` starts a run even if its estimated memory
    is more than there is. After `stop` returns True, the current step is finished and saved. Under torchrun every rank
    calls this with the same arguments; all ranks yield the same, except that only rank 0 saves. Raises the errors of
    `streamfeat.errors`.
    """
    if tensorboard:
        require_extra("tensorboard", "tensorboard", "--tensorboard")
    with (
        exact_arithmetic(),
        joined() as world,
        open_run_together(
            world, dataset, run, given or {}, start_from=start_from, resume=resume, overwrite=overwrite
        ) as opened,
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
        if session.carried is not None:
            yield session.carried
            yield Note(str(session.carried))
            yield from session.save()  # from now on the run can be resumed without the other one
        yield Progress("training", session.step, session.schedule.num_steps, "steps")
        while True:
            if session.validation_is_due:  # also after a resume, if the run was stopped before or during validation
                yield from session.validate(stop)
            if session.checkpoint_is_due:
                yield from session.save()
            if not (yield from session.may_continue(stop)):
                break
            stepped = yield from session.advance()
            yield Progress("training", session.step, session.schedule.num_steps, "steps", str(stepped))
        if not session.is_saved:
            yield from session.save()
        yield session.ended()
