"""`Session`: a training run in memory, and its steps, validations and checkpoints."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.errors import DataError, DivergedError, RankError, StorageError
from streamfeat.progress import Note
from streamfeat.store.tables import read_items
from streamfeat.stream.order import lanes_of_rank, steps_per_epoch
from streamfeat.stream.stream import StreamState
from train.devices.device import check_heads
from train.devices.memory import check_lasting_needs, shortage
from train.devices.ranks import World
from train.model.targets import Arrays, task_names
from train.model.transformer import EventTransformer
from train.runs.checkpoint import Checkpoints, TrainState
from train.runs.folder import BAD_STEPS, TENSORBOARD, Run
from train.runs.metrics import Kind, MetricsLog
from train.runs.record import versions
from train.runs.run_terms import check_terms, terms_of
from train.runs.standing import Figures, Standing
from train.runs.tensorboard import open_tensorboard
from train.training.bad_steps import append_bad_step
from train.training.baseline_losses import score_baselines
from train.training.feed import Feed, open_feed
from train.training.lap import Lap
from train.training.mixtures import MixtureTrial, choose_mixtures
from train.training.progress import Finished, Losses, Saved, Started, Stepped, Stopped, TrainingReport, Validated
from train.training.rehearsal import check_pass
from train.training.restore import refuse_older, restore
from train.training.schedule import Schedule
from train.training.start import carry_weights
from train.training.stopping import check_has_figure, check_monitor
from train.training.update import Update, Updater, finite_or_none, scaled_sum, scaled_watch_mean
from train.training.validation import validate, validation_batches

MOST_BAD_STEPS = 10  # so many in a row end the run


class Session:
    """A run that is ready for its next step. Each method does one thing and yields its results; `train_steps` calls
    them in order. Use `open_session` to make one."""

    def __init__(
        self,
        run: Run,
        world: World,
        opened: contextlib.ExitStack,
        *,
        stop: Callable[[], bool],
        tensorboard: bool,
        force: bool,
    ) -> None:
        self.run, self.config, self.manifest, self.world = run, run.config, run.manifest, world
        schema, num_windows = self.manifest.data_schema, self.manifest.splits["training"].windows
        if not num_windows:
            raise DataError(f"{run.dataset}: has no training window; hold out fewer users (--split) and build again")
        check_monitor(self.config.monitor, task_names(schema.media))
        self.batch_windows = self.config.batch_windows(schema.window_len)
        lanes_of_rank(self.batch_windows, world.rank, world.size)  # raises if the ranks cannot share the batch
        self.schedule = Schedule.of(self.config, steps_per_epoch(num_windows, self.batch_windows))
        self.item_targets = read_items(run.dataset).targets
        check_heads(world.device, self.config.model)
        self.notes = [Note(run.chosen)] if run.chosen else []  # messages to print before the first step
        self.terms = terms_of(run, world)
        tables = self.terms.tables if self.terms else None
        memory = check_lasting_needs(self.manifest, self.config, world, tables, resumed=run.resumed, force=force)
        model = EventTransformer.of(self.manifest, self.config, self.item_targets, tables).to(world.device)
        self.updater = Updater(model, self.manifest, self.config, self.schedule, world, tables)
        self.memory = check_pass(run, world, self.updater, memory, force=force)
        if not self.memory.fits:
            self.notes.append(Note(f"{shortage(self.memory, world)}; continuing because of --force", warning=True))
        state, checkpoints = restore(run, world, self.updater, self.notes) if run.resumed else (None, None)
        self.carried = None if state else carry_weights(run, world, self.updater)
        self.step, self.bad_steps = (state.step, state.bad_steps) if state else (0, 0)
        self.standing = state.standing if state else Standing()
        self._saved = (self.step, self.standing)  # what the newest checkpoint holds
        self._stream_state = state.stream if state else None
        self._feed: Feed | None = None  # the batches; None if the run is finished
        if state and not (self.is_finished and not self.validation_is_due):
            refuse_older(state, run.checkpoint_path(state.step))
        if not self.is_finished:
            if state:
                check_terms(run.path, self.terms, state.terms)
            feed = open_feed(run, world, self.schedule.num_steps, self._stream_state, self.updater.prepare)
            self._feed = opened.enter_context(feed)
        elif not self.validation_is_due:
            self.notes.append(Note(f"{run.path}: finished already, after step {self.step:,}; nothing to do"))
        # All checks are done: from here on rank 0 writes the run's folder. A trial writes nothing.
        self.started = None if run.trial else self._started(stop)  # also None if `stop` returned True meanwhile
        self._log: MetricsLog | None = None  # only on rank 0, like the checkpoints
        self._checkpoints: Checkpoints | None = None
        if world.is_first and not run.trial:
            run.begin()
            if self.terms:
                self.terms.write(run.path)
            self._checkpoints = checkpoints or Checkpoints(run.path, self.config.keep)
            scalars = None
            if tensorboard:
                scalars = open_tensorboard(run.path / TENSORBOARD, self.step + 1)
                opened.callback(scalars.close)
            self._log = opened.enter_context(MetricsLog(run.path, scalars))

    @property
    def num_parameters(self) -> int:
        """Number of learned values."""
        return sum(parameter.numel() for parameter in self.updater.model.parameters())

    def may_continue(self, stop: Callable[[], bool]) -> Generator[Note, None, bool]:
        """Waits for the next batch. False if the run is finished, a rank must stop, or no batch will come."""
        if self._feed is None or self.is_finished:
            return False
        return (yield from self._feed.await_batch(stop))

    def advance(self) -> Generator[TrainingReport, None, Stepped]:
        """Makes one step, after `may_continue` returned True: takes the next batch, updates, writes a line of metrics.

        Returns the `Stepped` that it also yields. Raises DivergedError after `MOST_BAD_STEPS` steps in a row whose loss
        or gradient was not finite.
        """
        feed = self._feed
        assert feed is not None
        prepared, stream = feed.take()
        update = self.updater.apply(prepared, feed.look_ahead)
        self.step += 1
        if update.loss is not None:  # a batch without targets does not show whether the run is sound
            self.bad_steps = 0
        elif not update.finite:
            self.bad_steps += 1
        speed, wait_share = self._over_all_ranks(feed.lap)
        self._write("train", {"loss": update.loss}, update.losses, update.learning_rate, speed, wait_share)
        stepped = Stepped(self.step, update.loss, update.losses, update.learning_rate, speed, wait_share, feed.ahead)
        yield stepped
        if not update.finite:
            yield self._record_bad_step(update, prepared.window, stream)
        if self.bad_steps == MOST_BAD_STEPS:
            raise DivergedError(
                f"step {self.step}: the last {MOST_BAD_STEPS} steps had a loss or gradient that is not finite"
                f"{self._where_it_is_kept()}; start anew with a lower --learning-rate "
                f"(now {self.config.learning_rate:g})"
            )
        return stepped

    def validate(self, stop: Callable[[], bool]) -> Iterator[TrainingReport]:
        """Reads the validation split and yields the figures; reads it again, with hidden times, if they are the best.
        Yields nothing if `stop` returns True before that."""
        updater, lap = self.updater, Lap()
        with contextlib.closing(lap.timed(self._validation_batches())) as batches:
            model = updater.average_model or updater.model
            num_users = self.manifest.splits["validation"].users
            trial = MixtureTrial(updater.facts, num_users, told=True) if updater.facts.terms else None
            losses = validate(model, batches, updater.facts, updater.micro_windows, self.world, trial=trial, stop=stop)
        if losses is None:
            return
        loss, watch = scaled_sum(losses, updater.scales), scaled_watch_mean(losses, updater.scales)
        totals = finite_or_none({"loss": loss, "watch": watch})
        losses = finite_or_none(losses)
        figures = Figures(step=self.step, loss=totals["loss"], watch=totals["watch"], losses=losses)
        is_counted = self.step >= self.schedule.patient_from
        standing = self.standing.after(figures, self.config.monitor, is_counted=is_counted)
        if trial and standing.best is figures:
            with contextlib.closing(self._validation_batches()) as batches:
                mixtures = choose_mixtures(trial, model, batches, updater.micro_windows, self.world, stop=stop)
            if mixtures is None:
                return
            figures = figures.model_copy(update={"mixtures": mixtures})
            standing = self.standing.after(figures, self.config.monitor, is_counted=is_counted)
        self.standing = standing
        speed, wait_share = self._over_all_ranks(lap)
        self._write("validation", totals, losses, updater.rate_of(self.step - 1), speed, wait_share)
        baselines = self.started.baselines if self.started else {}
        validated = Validated(figures, baselines, is_best=self.standing.best is figures)
        yield validated
        yield Note(str(validated))

    def save(self) -> Iterator[TrainingReport]:
        """Writes a checkpoint of the current state, on rank 0 only."""
        self._saved = (self.step, self.standing)
        if self._checkpoints is None:
            return
        stream = StreamState.model_validate(self._feed.state_dict()) if self._feed else self._stream_state
        assert stream is not None, "a run without a feed was finished when it was resumed"
        state = TrainState(
            step=self.step,
            bad_steps=self.bad_steps,
            standing=self.standing,
            stream=stream,
            config=self.config,
            fingerprint=self.manifest.fingerprint,
            terms=self.terms.digest if self.terms else "",
            versions=versions(),
        )
        updater = self.updater
        saved = self._checkpoints.save(state, updater.model, updater.optimizer, updater.average_model)
        yield Saved(self.step, saved)

    def ended(self) -> Finished | Stopped:
        """The last report of the run. Raises the error of the next batch, on the other ranks a RankError. Raises
        StorageError if no batch came."""
        if self.is_finished and not self.validation_is_due:
            best = self.standing.best
            at = self.run.checkpoint_path(best.step) if best else None
            return Finished(self.step, self.standing.last, best, at, self._why_finished())
        error = self._feed.error if self._feed else None
        failed = self.world.any(error is not None)[0]
        if error is not None:
            raise error
        if failed:
            raise RankError(
                f"another rank cannot continue after step {self.step:,}, see its error; then continue with --resume"
            )
        if self._feed and self._feed.problem:
            saved = "; what was learned is saved, continue with --resume" if self.step and not self.run.trial else ""
            raise StorageError(f"step {self.step}: {self._feed.problem}{saved}")
        return Stopped(self.step)

    def _why_finished(self) -> str:
        standing, patience = self.standing, self.config.patience
        if standing.best is not None and standing.is_exhausted(patience):
            return (
                f"the last {patience} validations were no better than that of step {standing.best.step:,} (--patience)"
            )
        return f"all {self.schedule.num_steps:,} steps are done (--{'steps' if self.config.steps else 'epochs'})"

    @property
    def is_finished(self) -> bool:
        """Whether every step is done, or validation has not improved `patience` times in a row."""
        return self.step >= self.schedule.num_steps or self.standing.is_exhausted(self.config.patience)

    @property
    def is_saved(self) -> bool:
        """Whether the newest checkpoint holds the current state."""
        return self._saved == (self.step, self.standing)

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether to save now: every `checkpoint_every` steps, at the end, and after a best validation."""
        is_best = self.standing.best is not None and self.standing.best.step == self.step
        return not self.is_saved and (is_best or self.is_finished or self._is_due(self.config.checkpoint_every))

    @property
    def validation_is_due(self) -> bool:
        """Whether to validate now: every `validate_every` steps or every epoch, and at the end; once a step."""
        done = self.standing.last is not None and self.standing.last.step == self.step
        has_split = self.manifest.splits["validation"].windows > 0
        return has_split and not done and self._is_due(self.schedule.validate_every)

    def _is_due(self, every: int) -> bool:
        has_learned = self.step > 0 or self.run.origin is not None
        return has_learned and (self.step % every == 0 or self.step >= self.schedule.num_steps)

    def _started(self, stop: Callable[[], bool]) -> Started | None:
        """The report before the first step. Scores the baselines for it. None if `stop` returned True meanwhile.

        Raises ConfigError if validation will never have the monitored figure.
        """
        scored = score_baselines(self._validation_batches(), self.manifest, self.item_targets, self.world, stop=stop)
        if scored is None:
            return None
        baselines, users = scored
        check_has_figure(self.config.monitor, users)
        return Started(
            run=self.run.path,
            device=self.world.device.type,
            num_parameters=self.num_parameters,
            step=self.step,
            num_steps=self.schedule.num_steps,
            steps_per_epoch=self.schedule.steps_per_epoch,
            window_len=self.manifest.data_schema.window_len,
            batch_windows=self.batch_windows,
            micro_batch_windows=self.updater.micro_windows,
            world_size=self.world.size,
            baselines=baselines,
            validation_users=users,
        )

    def _validation_batches(self) -> Generator[Arrays]:
        return validation_batches(self.run.dataset, self.manifest, self.config, self.world)

    def _over_all_ranks(self, lap: Lap) -> list[float]:
        """Tokens per second, summed over all ranks, and the mean over ranks of the share of time spent waiting."""
        speed, wait_share = lap.figures()
        return self.world.sum([speed, wait_share / self.world.size])

    def _where_it_is_kept(self) -> str:
        """The part of a message that names the bad steps' batches and the last checkpoint; empty for a trial."""
        if self.run.trial:
            return ""
        step, _ = self._saved
        last = self.run.checkpoint_path(step) if step or self.run.origin else "none was saved yet"
        return f" (their batches: {self.run.path / BAD_STEPS}); last checkpoint: {last}"

    def _record_bad_step(self, update: Update, window: NDArray[np.int64], stream: dict[str, Any]) -> Note:
        """Gathers the windows of all ranks; rank 0 writes them to the file of bad steps."""
        windows = self.world.concatenated(window)
        if self.world.is_first:
            epoch = (self.step - 1) // self.schedule.steps_per_epoch
            append_bad_step(self.run.path, update, windows, stream, step=self.step, epoch=epoch, ranks=self.world.size)
        what = ", ".join(f"{name} {value}" for name, value in update.not_finite.items())
        noted = "" if self.run.trial else f", its batch is noted in {self.run.path / BAD_STEPS}"
        return Note(
            f"step {self.step}: loss or gradient is not finite ({what}); the step was not applied{noted}",
            warning=True,
        )

    def _write(self, kind: Kind, totals: Losses, losses: Losses, rate: float, speed: float, wait_share: float) -> None:
        if self._log is None:
            return
        values = {**totals, **{f"loss_{task}": value for task, value in losses.items()}}
        if kind == "validation" and self.started is not None:
            values |= {f"baseline_{task}": value for task, value in self.started.baselines.items()}
        values |= {"lr": rate, "tokens_per_s": speed, "wait_share": wait_share}
        self._log.append(kind, self.step, values)


@contextlib.contextmanager
def open_session(
    run: Run, world: World, *, stop: Callable[[], bool], tensorboard: bool = False, force: bool = False
) -> Iterator[Session]:
    """A run that is ready for its next step: memory checked, newest checkpoint restored, batches and files open.

    Writes the run's folder only after everything else has succeeded. Raises ConfigError if the run is impossible, for
    instance if memory is too small and `force` is not set.
    """
    with contextlib.ExitStack() as opened:
        yield Session(run, world, opened, stop=stop, tensorboard=tensorboard, force=force)
