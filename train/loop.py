"""Training, as a recipe: it yields what happens and never prints."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from train.progress import Finished, Note, Progress, Stopped
from train.run import open_run
from train.session import Session, exact_arithmetic
from train.tensorboard import check_tensorboard


def never() -> bool:
    """The `stop` of a run that no one stops."""
    return False


def train(
    dataset: str | Path,
    run: str | Path,
    given: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    stop: Callable[[], bool] = never,
) -> Iterator[Progress]:
    """Train a model on `dataset` in the folder `run`; yields progress, at last `Finished` or `Stopped`.

    `given` are options by name, the fields of `TrainConfig` and `ModelConfig`; what is not given is the
    preset's or, with `resume`, as saved. Once `stop` says so, the current step is finished and saved.
    Raises the errors of `streamfeat.errors`.
    """
    if tensorboard:
        check_tensorboard()
    with (
        exact_arithmetic(),
        open_run(dataset, run, given or {}, resume=resume, overwrite=overwrite) as opened,
        Session(opened) as session,
    ):
        if resume and not opened.resumed:
            yield Note(f"{run}: no run to resume; starting from step 0")
        yield from session.restore()
        session.open_log(tensorboard=tensorboard)
        yield session.started()
        if session.is_finished:
            yield Note(f"{run}: finished already, all {session.num_steps:,} steps are done; nothing to do")
        if session.validation_is_due and not session.is_validated:
            yield from session.validate(stop)
        while session.step < session.num_steps and not stop():
            yield from session.advance()
            if session.checkpoint_is_due:
                yield session.save()
            if session.validation_is_due:
                yield from session.validate(stop)
        if session.step > session.saved_step:
            yield session.save()
        yield Finished(session.step, session.validated) if session.is_finished else Stopped(session.step)
