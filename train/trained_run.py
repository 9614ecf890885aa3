"""Runs in Python: `train` makes one, `open_run` opens one, `TrainedRun` gives access to its results and its model."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamfeat.call_options import given_path, takes_fields_of
from streamfeat.config import BuildConfig, ReadingConfig
from streamfeat.dataset import Dataset
from streamfeat.errors import ConfigError
from streamfeat.events.table_files import event_files, history_table
from streamfeat.plain_text import PrintedLines
from streamfeat.progress import Note
from streamfeat.progress_bars import events_of, print_note
from streamfeat.records import validated
from streamfeat.rows import Rows
from streamfeat.signals import stop_on_interrupt
from streamfeat.store.histories import read_held_out
from streamfeat.store.manifest import load_manifest
from train.config import ModelConfig, TrainConfig
from train.devices.launch import launched
from train.evaluation.evaluate import evaluate_steps
from train.evaluation.rows import EvaluationRows, evaluation_rows
from train.inference.every_user import Written, recommend_all_steps
from train.inference.item_matching import Match
from train.inference.recommend import DEFAULT_K, recommend_steps
from train.inference.recommendation_rows import recommendation_rows
from train.inference.refresh import Refreshed, refresh_steps
from train.runs.checkpoint import BEST
from train.runs.metrics import Line, read_metrics
from train.runs.record import RUN_DATASET, RunRecord, dataset_of, read_record
from train.runs.standing import Figures, Standing
from train.training.loop import train_steps
from train.training.progress import Stopped


@takes_fields_of(TrainConfig, ModelConfig)
def train(
    data: Dataset | str | PathLike[str],
    run: str | PathLike[str],
    *,
    start_from: "TrainedRun | str | PathLike[str] | None" = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    tensorboard: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> "TrainedRun":
    """Train a model on a dataset in the folder `run`.

        run = streamfeat.train("data", "run", preset="tiny", epochs=20)

    Ctrl-C, or a notebook's stop button, finishes the step, saves and returns the run. `resume=True` continues it.
    start_from: another run; this one starts with the weights of its best checkpoint, item by raw id, and its options.
    resume: continue from the last checkpoint, if there is one. overwrite: delete the existing run.
    force: start even if the estimated memory is more than there is. tensorboard: also write `run/tensorboard`.
    progress: True shows bars, False only warnings, None bars in a terminal or notebook.
    options: the fields of `TrainConfig` and `ModelConfig`, such as preset, objective, epochs, steps, batch_tokens,
    learning_rate, layers, width, live.

    Under torchrun every rank must call this with the same arguments. Raises the errors of `streamfeat.errors`; their
    messages say what to do.
    """
    path, run = data.path if isinstance(data, Dataset) else given_path("data", data), given_path("run", run)
    is_first = launched().is_first
    is_heard = is_first and progress is not False
    with stop_on_interrupt("finishing the step and saving" if is_heard else "") as stop:
        steps = train_steps(
            path,
            run,
            options,
            start_from=_path_of(start_from, "start_from"),
            resume=resume,
            overwrite=overwrite,
            force=force,
            tensorboard=tensorboard,
            stop=stop,
        )
        *_, end = events_of(steps, progress, quiet=not is_first)
    if isinstance(end, Stopped) and is_heard:
        again = f"streamfeat.train({str(path)!r}, {str(run)!r}, resume=True)"
        print_note(Note(f"stopped after step {end.step:,}; continue with {again}"))
    return TrainedRun(run)


def open_run(path: str | PathLike[str]) -> "TrainedRun":
    """Open the run in the folder `path`. Raises ConfigError if there is none, DamagedError if it cannot be read."""
    return TrainedRun(path)


class TrainedRun(PrintedLines):
    """A run: its configuration, its figures, and its model, which can be evaluated and can recommend.

    Every call reads the folder again, so that the results of a run that is still training are up to date.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Raises the errors of `open_run`."""
        self.path = given_path("path", path).absolute()  # it is read later, maybe after a chdir
        self.record: RunRecord = read_record(self.path)

    @property
    def config(self) -> TrainConfig:
        """The options of the run."""
        return self.record.train

    @property
    def dataset(self) -> Dataset:
        """The dataset that it was trained on. Raises ConfigError if the dataset does not exist any more."""
        return self._dataset(None)

    @property
    def figures(self) -> Rows:
        """The last validation and the best one, by task, next to the baselines (popularity, mean rating). `to_dict()`
        also holds their steps."""
        standing, baselines = self._standing(read_metrics(self.path))
        if standing.last is None or standing.best is None:
            return Rows(f"{self.path}: no validation with a figure yet", pa.table({"task": pa.array([], pa.string())}))
        last, best = ({"watch": of.watch, "loss": of.loss, **of.losses} for of in (standing.last, standing.best))
        table = pa.table(
            {
                "task": list(last),
                "last": pa.array(list(last.values()), pa.float64()),
                "best": pa.array([best[task] for task in last], pa.float64()),
                "baseline": pa.array([baselines.get(task) for task in last], pa.float64()),
            }
        )
        steps = f"last after step {standing.last.step:,}, best after step {standing.best.step:,}"
        values = {"last": standing.last.model_dump(), "best": standing.best.model_dump(), "baselines": baselines}
        return Rows(f"{self.path}: validation, {steps}", table, json=values, printed=table)

    @property
    def metrics(self) -> Rows:
        """A row for each step and each validation: kind, step, losses, learning rate, speed."""
        lines = read_metrics(self.path)
        columns = dict.fromkeys(name for line in lines for name in line)
        table = pa.table({name: [line.get(name) for line in lines] for name in columns})
        return Rows(f"{self.path}: metrics", table)

    def evaluate(
        self,
        dataset: Dataset | str | PathLike[str] | None = None,
        *,
        checkpoint: str = BEST,
        seed: int = 0,
        num_bootstrap: int = 1000,
        horizon_days: float | None = None,
        progress: bool | None = None,
    ) -> EvaluationRows:
        """Rank the whole catalogue for each user's held-out event, with the model and simple baselines.

        Returns a row for each figure of each system, with its 95% interval. `verdicts` say whether the model is better
        than the best baseline, `advice` what to try. `print` shows them and the model next to the baselines;
        `to_dict()` returns the JSON of docs/evaluate.md. Arguments and errors are those of `evaluate_steps`.
        """
        steps = evaluate_steps(
            self.path,
            _path_of(dataset),
            checkpoint=checkpoint,
            seed=seed,
            num_bootstrap=num_bootstrap,
            horizon_days=horizon_days,
        )
        (found,) = events_of(steps, progress)
        return evaluation_rows(self.path, found)

    def recommend(
        self,
        user: str | int | None = None,
        history: Any = None,
        *,
        k: int | None = None,
        at: datetime | int | None = None,
        candidates: str | Path | None = None,
        seen: bool = False,
        checkpoint: str = BEST,
        match: Match = "auto",
        dataset: Dataset | str | PathLike[str] | None = None,
        columns: Mapping[str, str] | None = None,
        progress: bool | None = None,
    ) -> Rows:
        """The `k` likeliest items of each medium, P(watch at t) and the rating, for a user or for a history.

        user: raw id of a user of the dataset. All of this user's events are the history.
        history: a path, a table, a list of tuples (item, timestamp) or (item, timestamp, rating), or of dicts by
        column. Without a column for the user, all rows belong to one user.
        match: "id" or "title" (and year) says how items of a history are found; "auto" decides it.
        dataset: the folder of the run's dataset, if it was moved; for `user`. columns: role → column of a history.
        Other arguments and the errors are those of `recommend_steps`. `to_dict()` returns the JSON of
        docs/recommend.md.
        """
        if (user is None) == (history is None):
            raise ConfigError(
                "recommend: give one of user= (raw id of a known one) and history= (a path, a table, rows)"
            )
        dense_user, training_events = -1, 0
        if user is not None:
            data = self._dataset(dataset)
            dense_user = data.dense_user(user)
            training_events = int(read_held_out(data.path, dense_user, dense_user + 1).training_events[0])
            table = data.history_table(user)
            history = table.append_column("user", pa.array([str(user)] * len(table), pa.string()))
        elif not isinstance(history, str | PathLike):
            history = history_table(history, columns or {})
        if isinstance(history, pa.Table):
            history = self._without_only_medium(history, columns or {})
        notes: list[Note] = []
        reading = validated(BuildConfig, {"columns": dict(columns or {})}, "recommend")
        with event_files(history, reading.columns, name="history") as files:
            steps = recommend_steps(
                self.path,
                files.paths[0],
                k=k,
                at=at,
                candidates=candidates,
                seen=seen,
                checkpoint=checkpoint,
                match="id" if dense_user >= 0 else match,
                reading=reading,
                user=dense_user,
                training_events=training_events,
            )
            found = events_of(files.renamed(steps), progress, notes)
        return recommendation_rows(self.path, found, notes)

    def recommend_all(
        self,
        out: str | PathLike[str],
        *,
        k: int = DEFAULT_K,
        at: datetime | int | None = None,
        seen: bool = False,
        checkpoint: str = BEST,
        dataset: Dataset | str | PathLike[str] | None = None,
        overwrite: bool = False,
        progress: bool | None = None,
    ) -> Written:
        """Write the lists of every user of the dataset to the Parquet file `out`. Memory does not grow with the number
        of users. Arguments and errors are those of `recommend_all_steps`."""
        steps = recommend_all_steps(
            self.path,
            _path_of(dataset),
            given_path("out", out),
            k=k,
            at=at,
            seen=seen,
            checkpoint=checkpoint,
            overwrite=overwrite,
        )
        (written,) = events_of(steps, progress)
        return written

    def refresh(
        self, events: Any, *, columns: Mapping[str, str] | None = None, progress: bool | None = None
    ) -> Refreshed:
        """Count newer events into what the run knows of popularity and of items that follow each other.

        events: paths or tables, one or several. columns: role → column, if not as in the run's dataset. Nothing is
        trained; `recommend` uses the new counts, `evaluate` does not. Errors are those of `refresh_steps`.
        """
        given = {} if columns is None else {"columns": dict(columns)}
        reading = validated(ReadingConfig, given, "refresh")
        known = load_manifest(self.path / RUN_DATASET).config.columns
        with event_files(events, reading.columns or known) as files:
            steps = refresh_steps(self.path, files.paths, reading=reading)
            (done,) = events_of(files.renamed(steps), progress)
        return done

    def _dataset(self, given: Dataset | str | PathLike[str] | None) -> Dataset:
        path, _ = dataset_of(self.path, _path_of(given))
        return Dataset(path)

    def _without_only_medium(self, history: pa.Table, columns: Mapping[str, str]) -> pa.Table:
        """`history` without its medium column, if this has the run's only medium in every row.

        A dataset whose files have no medium gets the medium `item`, which is not allowed as a name in event files.
        """
        media = load_manifest(self.path / RUN_DATASET).data_schema.media
        if len(media) > 1 or "medium" not in history.column_names or "medium" in columns:
            return history
        return history.drop_columns("medium") if set(history["medium"].to_pylist()) == set(media) else history

    def _standing(self, metrics: Sequence[Line]) -> tuple[Standing, dict[str, float | None]]:
        """The last and best validation, from the lines of `metrics`, and the baselines."""
        standing, baselines = Standing(), {}
        for line in metrics:
            if line["kind"] == "validation":
                losses = _below("loss_", line)
                figures = Figures(step=line["step"], loss=line["loss"], watch=line.get("watch"), losses=losses)
                standing, baselines = standing.after(figures, self.config.monitor), _below("baseline_", line)
        return standing, baselines

    def _lines(self) -> Iterator[str]:
        metrics = read_metrics(self.path)
        steps = [line["step"] for line in metrics if line["kind"] == "train"]
        best = self._standing(metrics)[0].best
        yield f"Run {str(self.path)!r} on {self.record.dataset!r}"
        yield f"  {self.config.objective}, preset {self.config.preset}, {max(steps, default=0):,} steps"
        if best is not None:
            value = best.value(self.config.monitor)
            yield f"  best validation ({self.config.monitor}): {value:.4f} after step {best.step:,}"


def _path_of(given: Dataset | TrainedRun | str | PathLike[str] | None, name: str = "dataset") -> Path | None:
    if given is None:
        return None
    return given.path if isinstance(given, Dataset | TrainedRun) else given_path(name, given)


def _below(prefix: str, line: Mapping[str, Any]) -> dict[str, float | None]:
    return {name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)}
