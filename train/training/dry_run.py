"""A dry run: does the first steps of a run, measures them, and keeps no files."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from streamfeat.errors import StorageError
from streamfeat.progress import Progress
from streamfeat.workers.process import peak_memory
from train.devices.device import exact_arithmetic
from train.devices.memory import Memory, num_bytes, told_what_to_lower
from train.devices.ranks import joined
from train.runs.folder import open_run_together
from train.training.loop import never
from train.training.progress import TrainingReport
from train.training.session import open_session

_UNTIMED = 3  # the first steps are slower: they compile and fill caches
_TIMED = 10


@dataclass(frozen=True)
class Estimate:
    """The size, memory and time of a run."""

    device: str
    world_size: int
    num_parameters: int
    weight_bytes: int  # this and the next two: on each rank
    gradient_bytes: int
    optimizer_bytes: int
    peak_bytes: int  # the most memory used so far: of the GPU, or of the process without a GPU
    memory: Memory  # the estimate before the first step
    batch_windows: int
    batch_tokens: int  # with PAD
    micro_batch_windows: int
    steps_per_epoch: int
    num_steps: int
    num_tokens: int  # tokens that the whole run reads, without PAD
    step_s: float  # median of the timed steps
    timed_steps: int

    @property
    def training_s(self) -> float:
        """Expected seconds of all steps, without validation and checkpoints."""
        return self.step_s * self.num_steps


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="streamfeat-")
    except OSError as error:
        raise StorageError(f"no folder for temporary files ({error}); set TMPDIR to one that has space") from None
    with folder as path:
        yield path


def dry_run_steps(
    dataset: str | Path,
    given: Mapping[str, Any] | None = None,
    *,
    start_from: str | Path | None = None,
    force: bool = False,
    stop: Callable[[], bool] = never,
) -> Iterator[TrainingReport | Estimate]:
    """Does the first steps that `train_steps` would do with the same arguments; yields an `Estimate` last, or
    `Stopped` if `stop` returned True before that. Raises the errors of `train_steps`."""
    with (
        exact_arithmetic(),
        joined() as world,
        _scratch() as folder,
        open_run_together(
            world, dataset, world.from_first(lambda: f"{folder}/run"), given or {}, start_from=start_from
        ) as opened,
        told_what_to_lower(opened.config, opened.manifest.data_schema.window_len, world),
        open_session(replace(opened, trial=True), world, stop=stop, force=force) as session,
    ):
        yield from session.notes
        seconds: list[float] = []
        last = min(_UNTIMED + _TIMED, session.schedule.num_steps)
        while session.step < last and (yield from session.may_continue(stop)):
            started = time.perf_counter()
            yield from session.advance()
            seconds.append(time.perf_counter() - started)
            yield Progress("timing", session.step, last, "steps")
        if session.step < last:
            yield session.ended()
            return
        timed = seconds[min(_UNTIMED, len(seconds) - 1) :]
        training, parameters = session.manifest.splits["training"], list(session.updater.model.parameters())
        yield Estimate(
            device=world.device.type,
            world_size=world.size,
            num_parameters=session.num_parameters,
            weight_bytes=num_bytes(parameters),
            gradient_bytes=num_bytes([p.grad for p in parameters if p.grad is not None]),
            optimizer_bytes=num_bytes([v for s in session.updater.optimizer.state.values() for v in s.values()]),
            peak_bytes=_peak_memory(world.device),
            memory=session.memory,
            batch_windows=session.batch_windows,
            batch_tokens=session.batch_windows * session.manifest.data_schema.window_len,
            micro_batch_windows=session.updater.micro_windows,
            steps_per_epoch=session.schedule.steps_per_epoch,
            num_steps=session.schedule.num_steps,
            num_tokens=round(training.tokens * session.schedule.num_steps / session.schedule.steps_per_epoch),
            step_s=median(timed),
            timed_steps=len(timed),
        )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()
