"""What a training process holds while it runs: model, optimizer, its batches, and open files."""

import contextlib
import math
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamfeat.errors import DataError, DivergedError, RankError, StorageError
from streamfeat.progress import Note
from streamfeat.store.tables import read_items
from streamfeat.stream.order import lanes_of_rank, steps_per_epoch
from train.devices.device import check_heads
from train.devices.memory import check_memory, shortage
from train.devices.ranks import World
from train.model.targets import task_names
from train.model.transformer import EventTransformer
from train.runs.checkpoint import Checkpoint, Checkpoints, TrainState, read_checkpoint
from train.runs.folder import BAD_STEPS, TENSORBOARD, Run, check_checkpoint
from train.runs.metrics import Kind, MetricsLog
from train.runs.record import versions
from train.runs.standing import Figures, Standing
from train.runs.tensorboard import open_tensorboard
from train.training.bad_steps import append_bad_step
from train.training.baseline_losses import score_baselines
from train.training.feed import Feed, Timed
from train.training.progress import Finished, Losses, Saved, Started, Stepped, Stopped, TrainingReport, Validated
from train.training.stopping import check_has_figure, check_monitor
from train.training.update import Prepared, Update, Updater, finite_or_none, scaled_sum
from train.training.validation import validate, validation_batches

MOST_BAD_STEPS = 10  # in a row, before a run is given up


class Session:
    """A run under way. Its methods do one thing each and say what came of it; `loop.train` orders them."""

    def __init__(self, run: Run, world: World, *, force: bool = False) -> None:
        """Raises ConfigError where the run cannot be: among others, where memory does not suffice, unless `force`."""
        self.at, self.config, self.manifest, self.world = run, run.config, run.manifest, world
        schema, num_windows = self.manifest.data_schema, self.manifest.splits["training"].windows
        if not num_windows:
            raise DataError(f"{run.dataset}: has no training window; hold out fewer users (--split) and build again")
        check_monitor(self.config.monitor, task_names(schema.media))
        self.batch_windows = self.config.batch_windows(schema.window_len)
        lanes_of_rank(self.batch_windows, world.rank, world.size)  # refuses what the ranks cannot share
        self.steps_per_epoch = steps_per_epoch(num_windows, self.batch_windows)
        self.num_steps = self.config.steps or self.config.epochs * self.steps_per_epoch
        self.item_targets = read_items(run.dataset).targets
        check_heads(world.device, self.config.model)
        self.memory = check_memory(self.manifest, self.config, world, resumed=run.resumed, force=force)
        model = EventTransformer.of(self.manifest, self.config, self.item_targets).to(world.device)
        self.updater = Updater(model, self.manifest, self.config, self.num_steps, world)
        self.step = self.bad_steps = 0
        self.standing = Standing()
        self._saved: tuple[int, Standing] = (0, self.standing)  # what the newest checkpoint holds
        self._baselines: Losses = {}
        self._open = contextlib.ExitStack()
        self._checkpoints: Checkpoints | None = None  # on rank 0, which alone writes
        self._log: MetricsLog | None = None  # on rank 0
        self._feed: Feed | None = None  # none where the run is finished already
        self._prepared: Prepared | None = None  # the next step's batch, where it is there already
        self._error: Exception | None = None  # why the next step cannot be
        self._stream_state: dict[str, Any] = {}  # of the checkpoint that the run goes on from

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def open(self) -> Iterator[TrainingReport]:
        """Go back to the newest checkpoint that is whole, if the run is one that goes on; open the batches."""
        if not self.memory.fits:
            yield Note(f"{shortage(self.memory, self.world)}; going on, as --force says", warning=True)
        checkpoint = yield from self._restore()
        if checkpoint is not None:
            self._stream_state = checkpoint.state.stream
        if not self.is_finished:
            self._feed = self._open.enter_context(Feed(self.at, self.world, self.num_steps, self._stream_state))

    def begin(self, *, tensorboard: bool) -> None:
        """From now on the run's folder is written: on rank 0, which alone does."""
        if self.world.is_first:
            self.at.begin()
            if self._checkpoints is None:
                self._checkpoints = Checkpoints(self.at.path, self.config.keep)
            scalars = None
            if tensorboard:
                scalars = open_tensorboard(self.at.path / TENSORBOARD, self.step + 1)
                self._open.callback(scalars.close)
            self._log = self._open.enter_context(MetricsLog(self.at.path, scalars))

    def started(self, stop: Callable[[], bool]) -> Started | None:
        """What there is to tell before the first step; scores the baselines. None where `stop` said so meanwhile.

        Raises ConfigError where validation will never have the figure that is to be watched.
        """
        batches = validation_batches(self.at.dataset, self.manifest, self.config, self.world)
        scored = score_baselines(batches, self.manifest, self.item_targets, self.world, stop=stop)
        if scored is None:
            return None
        self._baselines, users = scored
        check_has_figure(self.config.monitor, users)
        return Started(
            run=self.at.path,
            device=self.world.device.type,
            num_parameters=self.num_parameters,
            step=self.step,
            num_steps=self.num_steps,
            steps_per_epoch=self.steps_per_epoch,
            window_len=self.manifest.data_schema.window_len,
            batch_windows=self.batch_windows,
            micro_batch_windows=self.updater.micro_windows,
            world_size=self.world.size,
            baselines=self._baselines,
            validation_users=users,
        )

    @property
    def feed(self) -> Feed:
        """The batches of a run that is not finished."""
        assert self._feed is not None
        return self._feed

    @property
    def num_parameters(self) -> int:
        """Numbers that are learned."""
        return sum(parameter.numel() for parameter in self.updater.model.parameters())

    def may_go_on(self, stop: Callable[[], bool]) -> Generator[TrainingReport, None, bool]:
        """Wait for the next batch; False where a rank is to stop, where it is damaged, or where none will come."""
        return (yield from self.feed.await_batch(lambda: stop() or self._error is not None))

    def advance(self) -> Iterator[TrainingReport]:
        """One step: the next batch of the stream, an update, a line of metrics.

        Raises DivergedError after `MOST_BAD_STEPS` in a row whose loss or gradient was not finite.
        """
        feed = self.feed
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            prepared = self.updater.prepare(feed.peek(), self.step)
        stream = feed.state_dict()
        feed.take()
        update = self.updater.apply(prepared, self._prepare_next)
        self.step += 1
        if update.loss is not None:  # a batch without targets says nothing of the run's health
            self.bad_steps = 0
        elif not update.finite:
            self.bad_steps += 1
        speed, wait_share = feed.timed.lap()
        speed, wait_share = self.world.sum([speed, wait_share / self.world.size])
        self._write("train", update.loss, update.losses, update.learning_rate, speed, wait_share)
        yield Stepped(self.step, update.loss, update.losses, update.learning_rate, speed, wait_share, feed.ahead())
        if not update.finite:
            yield self._record_bad_step(update, prepared.window, stream)
        if self.bad_steps == MOST_BAD_STEPS:
            raise DivergedError(
                f"step {self.step}: the last {MOST_BAD_STEPS} steps had a loss or gradient that is not finite"
                f"{self._where_it_is_kept()}; start anew with a lower --learning-rate "
                f"(now {self.config.learning_rate:g})"
            )

    def validate(self, stop: Callable[[], bool]) -> Iterator[TrainingReport]:
        """The validation split once; nothing comes of it where `stop` says so before its end."""
        updater = self.updater
        batches = Timed(validation_batches(self.at.dataset, self.manifest, self.config, self.world))
        with contextlib.closing(batches):
            losses = validate(updater.model, batches, updater.facts, updater.micro_windows, self.world, stop=stop)
            speed, wait_share = batches.lap()
        if losses is None:
            return
        loss = scaled_sum(losses, updater.scales)
        losses = finite_or_none(losses)
        figures = Figures(
            step=self.step, loss=loss if loss is not None and math.isfinite(loss) else None, losses=losses
        )
        self.standing = self.standing.after(figures, self.config.monitor)
        speed, wait_share = self.world.sum([speed, wait_share / self.world.size])
        self._write("validation", figures.loss, losses, updater.rate_of(self.step - 1), speed, wait_share)
        yield Validated(figures, is_best=self.standing.best is figures)

    def save(self) -> Iterator[TrainingReport]:
        """Write a checkpoint of this moment; rank 0 alone does."""
        self._saved = (self.step, self.standing)
        if self._checkpoints is None:
            return
        state = TrainState(
            step=self.step,
            bad_steps=self.bad_steps,
            standing=self.standing,
            stream=self._feed.state_dict() if self._feed else self._stream_state,
            config=self.config,
            fingerprint=self.manifest.fingerprint,
            versions=versions(),
        )
        yield Saved(self.step, self._checkpoints.save(state, self.updater.model, self.updater.optimizer))

    def ended(self) -> Finished | Stopped:
        """The last word. Raises what was wrong with the next batch, on the other ranks a RankError, and StorageError
        where none came."""
        if self.is_finished and not self.validation_is_due:
            best = self.standing.best
            at = self.at.checkpoint_path(best.step) if best else None
            return Finished(self.step, self.standing.last, best, at)
        failed = self.world.any(self._error is not None)[0]
        if self._error is not None:
            raise self._error
        if failed:
            raise RankError(
                f"another rank cannot go on after step {self.step:,}, as it says; mend that, then go on with --resume"
            )
        if self._feed and self._feed.problem:
            saved = "; what was learned is saved, go on with --resume" if self.step and not self.at.trial else ""
            raise StorageError(f"step {self.step}: {self._feed.problem}{saved}")
        return Stopped(self.step)

    @property
    def is_finished(self) -> bool:
        """Whether every step is done, or validation has not fallen for as long as the run is patient."""
        return self.step >= self.num_steps or self.standing.is_exhausted(self.config.patience)

    @property
    def is_saved(self) -> bool:
        """Whether the newest checkpoint holds this moment."""
        return self._saved == (self.step, self.standing)

    @property
    def checkpoint_is_due(self) -> bool:
        """After so many steps, at the end, and whenever validation is better than it was."""
        is_best = self.standing.best is not None and self.standing.best.step == self.step
        return is_best or self.is_finished or self._is_due(self.config.checkpoint_every)

    @property
    def validation_is_due(self) -> bool:
        """After so many steps or every epoch, and at the end, once."""
        done = self.standing.last is not None and self.standing.last.step == self.step
        has_split = self.manifest.splits["validation"].windows > 0
        return has_split and not done and self._is_due(self.config.validate_every or self.steps_per_epoch)

    def _is_due(self, every: int) -> bool:
        return self.step > 0 and (self.step % every == 0 or self.step >= self.num_steps)

    def _restore(self) -> Generator[TrainingReport, None, Checkpoint | None]:
        """Bring model and optimizer to the newest checkpoint that is whole, the same on every rank."""
        if not self.at.resumed:
            return None
        mine: list[Checkpoint] = []  # rank 0's, read once

        def found() -> dict[str, Any]:
            self._checkpoints = Checkpoints(self.at.path, self.config.keep)
            checkpoint, problems = self._checkpoints.load_newest()
            if checkpoint is None:
                return {"path": None, "problems": problems}
            check_checkpoint(self.at, checkpoint)
            mine.append(checkpoint)
            return {"path": str(checkpoint.path), "problems": problems}

        newest = self.world.from_first(found)
        for problem in newest["problems"]:
            yield Note(f"damaged checkpoint: {problem}", warning=True)
        if newest["path"] is None:
            yield Note(f"{self.at.path}: has no checkpoint yet; starting from step 0")
            return None
        checkpoint = mine[0] if mine else read_checkpoint(newest["path"])
        checkpoint.restore(self.updater.model, self.updater.optimizer)
        self.step, self.bad_steps = checkpoint.state.step, checkpoint.state.bad_steps
        self.standing = checkpoint.state.standing
        self._saved = (self.step, self.standing)
        yield Note(f"resuming from {checkpoint.path}")
        return checkpoint

    def _prepare_next(self) -> None:
        """While the device is busy with a step: the host's part of the next, where its batch is there already.

        Whatever goes wrong is an error of that step: this one is done, and saved, before it is raised."""
        try:
            if self.step + 1 < self.num_steps and self.feed.is_there():
                self._prepared = self.updater.prepare(self.feed.peek(), self.step + 1)
        except torch.OutOfMemoryError:
            pass  # it is prepared in its own step, when the device has given this one's memory back
        except Exception as error:  # noqa: BLE001  raised by `ended`
            self._error = error

    def _where_it_is_kept(self) -> str:
        """For a message; a trial keeps nothing."""
        if self.at.trial:
            return ""
        step, _ = self._saved
        last = self.at.checkpoint_path(step) if step else "none was saved yet"
        return f" (their batches: {self.at.path / BAD_STEPS}); last checkpoint: {last}"

    def _record_bad_step(self, update: Update, window: NDArray[np.int64], stream: dict[str, Any]) -> Note:
        """Every rank tells its windows, rank 0 writes the line."""
        windows = self.world.concatenated(window)
        if self.world.is_first:
            epoch = (self.step - 1) // self.steps_per_epoch
            append_bad_step(
                self.at.path, update, windows, stream, step=self.step, epoch=epoch, ranks=self.world.size
            )  # fmt: skip
        what = ", ".join(f"{name} {value}" for name, value in update.not_finite.items())
        noted = "" if self.at.trial else f", its batch is noted in {self.at.path / BAD_STEPS}"
        return Note(
            f"step {self.step}: loss or gradient is not finite ({what}); the step was not applied{noted}",
            warning=True,
        )

    def _write(
        self, kind: Kind, loss: float | None, losses: Losses, rate: float, speed: float, wait_share: float
    ) -> None:
        if self._log is None:
            return
        values = {"loss": loss, **{f"loss_{task}": value for task, value in losses.items()}}
        if kind == "validation":
            values |= {f"baseline_{task}": value for task, value in self._baselines.items()}
        values |= {"lr": rate, "tokens_per_s": speed, "wait_share": wait_share}
        self._log.append(kind, self.step, values)
