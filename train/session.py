"""What a training process holds while it runs: model, optimizer, position in the data, and open files."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType

import torch

from streamfeat.errors import ConfigError, DataError, DivergedError
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from streamfeat.stream.stream import WindowStream
from train.baselines import score_baselines
from train.checkpoint import Checkpoints, TrainState
from train.config import ModelConfig
from train.metrics import Kind, MetricsLog, read_metrics
from train.model import EventTransformer
from train.progress import Losses, Note, Progress, Saved, Started, Stepped, Validated
from train.run import RUN_DATASET, TENSORBOARD, Run, check_checkpoint, versions
from train.targets import Arrays
from train.tensorboard import open_tensorboard
from train.update import Updater, finite_or_none, scaled_sum
from train.validation import validate, validation_batches

LEAST_CUDA_HEAD = 16  # values of a head: below, FlexAttention has no CUDA kernel
MOST_BAD_STEPS = 10  # in a row, before a run is given up


class Session:
    """A run under way. Its methods do one thing each and say what came of it; `loop.train` orders them."""

    def __init__(self, run: Run) -> None:
        self.at, self.config, self.manifest = run, run.config, run.manifest
        if not self.manifest.splits["training"].windows:
            raise DataError(f"{run.dataset}: has no training window; hold out fewer users (--split) and build again")
        self.stream = WindowStream(
            run.dataset,
            objective=self.config.objective,
            mask_policy=self.config.mask_policy,
            batch_windows=self.config.batch_windows(self.manifest.schema_.window_len),
            seed=self.config.seed,
            threads=self.config.threads,
        )
        self.num_steps = self.config.steps or self.config.epochs * self.stream.steps_per_epoch
        self.item_targets = read_items(run.path / RUN_DATASET).targets
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        _check_heads(device, self.config.model)
        model = EventTransformer.of(self.manifest, self.config, self.item_targets).to(device)
        self.updater = Updater(model, self.manifest, self.config, self.num_steps)
        self.checkpoints = Checkpoints(run.path)
        self.step = self.saved_step = self.bad_steps = 0
        self.validated: Validated | None = None  # the last validation
        self._files = contextlib.ExitStack()
        self._log: MetricsLog
        self._batches = TimedBatches(self._epochs())

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._batches.close()
        self.stream.close()
        self._files.close()

    def restore(self) -> Iterator[Progress]:
        """Go back to the newest checkpoint that is whole, if the run is one that goes on."""
        if not self.at.resumed:
            return
        checkpoint, problems = self.checkpoints.load_newest()
        for problem in problems:
            yield Note(f"damaged checkpoint skipped: {problem}", warning=True)
        if checkpoint is None:
            # The packings that the run began with, though more may have been added meanwhile.
            packings = load_manifest(self.at.path / RUN_DATASET).splits["training"].packings
            self.stream.load_state_dict({**self.stream.state_dict(), "packings": packings})
            yield Note(f"{self.at.path}: has no checkpoint yet; starting from step 0")
            return
        check_checkpoint(self.at, checkpoint)
        checkpoint.restore(self.updater.model, self.updater.optimizer)
        self.stream.load_state_dict(checkpoint.state.stream)
        self.step = self.saved_step = checkpoint.state.step
        self.bad_steps = checkpoint.state.bad_steps
        self.validated = self._logged_validation()
        yield Note(f"resuming from {checkpoint.path}")

    def open_log(self, *, tensorboard: bool) -> None:
        """Append to the metrics from here on."""
        scalars = None
        if tensorboard:
            scalars = open_tensorboard(self.at.path / TENSORBOARD, self.step + 1)
            self._files.callback(scalars.close)
        self._log = self._files.enter_context(MetricsLog(self.at.path, scalars))

    def started(self) -> Started:
        """What there is to tell before the first step; scores the baselines."""
        batches = validation_batches(self.at.dataset, self.manifest, self.config)
        baselines, users = score_baselines(batches, self.manifest, self.item_targets)
        window_len = self.manifest.schema_.window_len
        return Started(
            run=self.at.path,
            device=self.updater.device.type,
            num_parameters=sum(parameter.numel() for parameter in self.updater.model.parameters()),
            step=self.step,
            num_steps=self.num_steps,
            steps_per_epoch=self.stream.steps_per_epoch,
            window_len=window_len,
            batch_windows=self.config.batch_windows(window_len),
            micro_batch_windows=self.updater.micro_windows,
            baselines=baselines,
            validation_users=users,
        )

    def advance(self) -> Iterator[Progress]:
        """One step: the next batch of the stream, an update, a line of metrics.

        Raises DivergedError after `MOST_BAD_STEPS` in a row whose loss or gradient was not finite.
        """
        started = self._batches.reading()
        arrays = next(self._batches)
        update = self.updater.apply(arrays, self.step)
        self.step += 1
        if update.loss is not None:  # a batch without targets says nothing of the run's health
            self.bad_steps = 0
        elif not update.finite:
            self.bad_steps += 1
        speed, wait_share = self._batches.since(started)
        self._write("train", update.loss, update.losses, update.learning_rate, speed, wait_share)
        yield Stepped(self.step, update.loss, update.losses, update.learning_rate, speed, wait_share)
        if not update.finite:
            yield Note(f"step {self.step}: loss or gradient is not finite; the step was not applied", warning=True)
        if self.bad_steps == MOST_BAD_STEPS:
            last = self.checkpoints.path(self.saved_step) if self.saved_step else "none was saved yet"
            raise DivergedError(
                f"step {self.step}: the last {MOST_BAD_STEPS} steps had a loss or gradient that is not finite; "
                f"last checkpoint: {last}; start anew with a lower --learning-rate (now {self.config.learning_rate:g})"
            )

    def validate(self, stop: Callable[[], bool]) -> Iterator[Progress]:
        """The validation split once; nothing comes of it where `stop` says so before its end."""
        with contextlib.closing(
            TimedBatches(validation_batches(self.at.dataset, self.manifest, self.config))
        ) as batches:
            started = batches.reading()
            updater = self.updater
            losses = validate(updater.model, batches, updater.facts, updater.micro_windows, stop=stop)
            speed, wait_share = batches.since(started)
        if losses is None:
            return
        loss = scaled_sum(losses, self.updater.scales)
        losses = finite_or_none(losses)
        self.validated = Validated(self.step, loss if loss is not None and math.isfinite(loss) else None, losses)
        rate = self.updater.rate_of(self.step - 1)
        self._write("validation", self.validated.loss, losses, rate, speed, wait_share)
        yield self.validated

    def save(self) -> Saved:
        """Write a checkpoint of this moment."""
        state = TrainState(
            step=self.step,
            bad_steps=self.bad_steps,
            stream=self.stream.state_dict(),
            config=self.config,
            fingerprint=self.manifest.fingerprint,
            versions=versions(),
        )
        path = self.checkpoints.save(state, self.updater.model, self.updater.optimizer)
        self.saved_step = self.step
        return Saved(self.step, path)

    @property
    def checkpoint_is_due(self) -> bool:
        return self._is_due(self.config.checkpoint_every)

    @property
    def validation_is_due(self) -> bool:
        return self._has_validation and self._is_due(self.config.validate_every)

    @property
    def is_validated(self) -> bool:
        """Whether the last validation was made at this step."""
        return self.validated is not None and self.validated.step == self.step

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, and the last one is validated where there is something to validate on."""
        return self.step == self.num_steps and (self.is_validated or not self._has_validation)

    @property
    def _has_validation(self) -> bool:
        return self.manifest.splits["validation"].windows > 0

    def _is_due(self, every: int) -> bool:
        return self.step > 0 and (self.step % every == 0 or self.step == self.num_steps)

    def _epochs(self) -> Generator[Arrays]:
        while True:
            yield from self.stream

    def _write(
        self, kind: Kind, loss: float | None, losses: Losses, rate: float, speed: float, wait_share: float
    ) -> None:
        of_tasks = {f"loss_{task}": value for task, value in losses.items()}
        values = {"loss": loss, **of_tasks, "lr": rate, "tokens_per_s": speed, "wait_share": wait_share}
        self._log.append(kind, self.step, values)

    def _logged_validation(self) -> Validated | None:
        """The validation of this step, if the run made it before it was interrupted."""
        for line in read_metrics(self.at.path):
            if line["kind"] == "validation" and line["step"] == self.step:
                losses = {task: line.get(f"loss_{task}") for task in self.updater.scales}
                return Validated(self.step, line["loss"], losses)
        return None


def _check_heads(device: torch.device, shape: ModelConfig) -> None:
    """Raise ConfigError for heads that FlexAttention's CUDA kernel refuses."""
    if device.type == "cuda" and shape.width // shape.heads < LEAST_CUDA_HEAD:
        raise ConfigError(
            f"--heads {shape.heads}: heads of {shape.width // shape.heads} values are too narrow for a GPU; "
            f"at most {shape.width // LEAST_CUDA_HEAD} heads fit a width of {shape.width}"
        )


class TimedBatches:
    """Batches, and how long they kept their reader waiting."""

    def __init__(self, batches: Generator[Arrays]) -> None:
        self._batches = batches
        self._waited_s = 0.0
        self._num_tokens = 0

    def __iter__(self) -> Iterator[Arrays]:
        return self

    def __next__(self) -> Arrays:
        asked = time.perf_counter()
        arrays = next(self._batches)
        self._waited_s += time.perf_counter() - asked
        self._num_tokens += int((arrays["segment"] >= 0).sum())
        return arrays

    def close(self) -> None:
        """Let the stream's threads go."""
        self._batches.close()

    def reading(self) -> tuple[float, float, int]:
        """A mark to measure from."""
        return time.perf_counter(), self._waited_s, self._num_tokens

    def since(self, mark: tuple[float, float, int]) -> tuple[float, float]:
        """Tokens per second and the share of time spent waiting, since `mark`; PAD is no token."""
        started, waited_s, num_tokens = mark
        seconds = time.perf_counter() - started
        return (self._num_tokens - num_tokens) / seconds, (self._waited_s - waited_s) / seconds


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """On a CPU, where it costs nothing, only operations that give the same bits each time."""
    deterministic = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    # Else every fresh buffer would be filled before it is written.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]
