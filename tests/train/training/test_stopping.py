"""A run ends when validation no longer falls, keeps its best, and a resumed one ends where it would have."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invented_events import write_csv
from reference_build import Event

from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError
from train.runs.checkpoint import Checkpoints, read_checkpoint
from train.runs.standing import Figures, Standing
from train.training.loop import train_steps
from train.training.progress import Finished, Stepped, Stopped, TrainingReport, Validated
from train.training.stopping import check_monitor

# A rate this high makes validation worse soon; dropout off makes it surer.
GIVEN: dict[str, Any] = {
    "layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "epochs": 40, "validate_every": 3, "patience": 3,
    "learning_rate": 0.05, "dropout": 0.0, "checkpoint_every": 1000, "keep": 1,
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


def figures(step: int, loss: float | None, **losses: float | None) -> Figures:
    return Figures(step=step, loss=loss, losses=losses)


def standing(values: list[float | None], monitor: str = "loss") -> Standing:
    found = Standing()
    for step, value in enumerate(values):
        made = figures(step, value) if monitor == "loss" else figures(step, 1.0, **{monitor: value})
        found = found.after(made, monitor)
    return found


@pytest.mark.parametrize("monitor", ["loss", "anime_watch"])
@pytest.mark.parametrize(
    ("values", "best", "since"),
    [
        ([], None, 0),
        ([3.0], 0, 0),
        ([3.0, 2.0, 2.0, 2.5], 1, 2),  # an equal one is no better
        ([3.0, 4.0, 1.0, None, 2.0], 2, 2),  # one that is not finite is worse
        ([None, None, 5.0], 2, 0),  # nothing to compare with is no lack of progress
        ([None, None], None, 0),
    ],
)
def test_the_best_is_the_lowest_and_the_earliest(
    values: list[float | None], best: int | None, since: int, monitor: str
) -> None:
    """And the others after it are counted."""
    found = standing(values, monitor)
    assert (found.best.step if found.best else None, found.since_best) == (best, since)
    assert found.last == (None if not values else found.last)


def test_patience_is_a_number_of_validations_and_zero_is_for_ever() -> None:
    """Three validations that are no better end a run whose patience is three."""
    found = standing([1.0, 2.0, 2.0, 2.0])
    assert [found.is_exhausted(patience) for patience in (0, 2, 3, 4)] == [False, True, True, False]


def test_an_unknown_figure_is_refused_with_the_closest_name() -> None:
    """Known are the loss and every task."""
    check_monitor("anime_watch", ("anime_watch", "anime_rating"))
    with pytest.raises(ConfigError, match="did you mean anime_watch"):
        check_monitor("anime_wach", ("anime_watch", "anime_rating"))


def drain(records: Iterator[TrainingReport]) -> list[TrainingReport]:
    return list(records)


def test_a_run_stops_early_and_keeps_the_best_and_the_last(tmp_path: Path, tiny_dataset: Path) -> None:
    """After `patience` validations without a new best; both checkpoints are there and named."""
    records = drain(train_steps(tiny_dataset, tmp_path / "run", GIVEN))
    validated = [record for record in records if isinstance(record, Validated)]
    losses = [record.figures.watch for record in validated]
    best = min(range(len(losses)), key=lambda i: losses[i])  # type: ignore[arg-type, return-value]
    counted = [record for record in validated[best + 1 :] if record.figures.step >= 100]
    assert len(counted) == 3
    assert len(losses) < 40 * 6 // 3
    assert [record.is_best for record in validated] == [
        loss == min(losses[: i + 1]) for i, loss in enumerate(losses)  # type: ignore[type-var]
    ]  # fmt: skip
    last = records[-1]
    assert isinstance(last, Finished)
    assert last.best == validated[best].figures
    assert last.step == validated[-1].figures.step
    assert Checkpoints(tmp_path / "run").steps() == [last.best.step, last.step]  # type: ignore[union-attr]
    assert last.best_checkpoint == tmp_path / "run" / (tmp_path / "run/best").read_text().strip()
    assert read_checkpoint(last.best_checkpoint).state.standing.best == last.best  # type: ignore[arg-type]


def test_a_task_can_be_what_a_run_looks_at(tmp_path: Path, tiny_dataset: Path) -> None:
    """The best by manga_rating need not be the best by the sum."""
    records = drain(train_steps(tiny_dataset, tmp_path / "run", {**GIVEN, "monitor": "manga_rating", "epochs": 4}))
    losses = [record.figures.losses["manga_rating"] for record in records if isinstance(record, Validated)]
    last = records[-1]
    assert isinstance(last, Finished)
    assert last.best is not None
    assert last.best.losses["manga_rating"] == min(losses)  # type: ignore[type-var]


@pytest.mark.parametrize("every", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_resumed_stops_where_it_would_have(tmp_path: Path, tiny_dataset: Path, every: int) -> None:
    """How many validations brought nothing is saved like everything else."""
    whole = drain(train_steps(tiny_dataset, tmp_path / "whole", GIVEN))[-1]
    step, last = 0, None
    while not isinstance(last, Finished):
        step += every
        seen: list[int] = []
        records = train_steps(tiny_dataset, tmp_path / "run", GIVEN, resume=True, stop=lambda seen=seen: bool(seen))
        for record in records:
            last = record
            if isinstance(record, Stepped) and record.step >= step:
                seen.append(record.step)
        assert isinstance(last, Finished | Stopped)
    assert isinstance(whole, Finished)
    assert (last.step, last.best, last.last) == (whole.step, whole.best, whole.last)


def test_more_patience_goes_on_with_a_run_that_had_ended(tmp_path: Path, tiny_dataset: Path) -> None:
    """Patience changes no step, so it is free on resume."""
    first = drain(train_steps(tiny_dataset, tmp_path / "run", GIVEN))[-1]
    again = drain(train_steps(tiny_dataset, tmp_path / "run", GIVEN, resume=True))
    assert not any(isinstance(record, Stepped) for record in again)
    more = drain(train_steps(tiny_dataset, tmp_path / "run", {"patience": 5}, resume=True))[-1]
    assert isinstance(first, Finished)
    assert isinstance(more, Finished)
    assert more.step > first.step


def test_an_unknown_figure_leaves_no_run_behind(tmp_path: Path, tiny_dataset: Path) -> None:
    """The corrected command is no other run's."""
    with pytest.raises(ConfigError, match="--monitor"):
        drain(train_steps(tiny_dataset, tmp_path / "run", {**GIVEN, "monitor": "lose"}))
    assert isinstance(drain(train_steps(tiny_dataset, tmp_path / "run", {**GIVEN, "epochs": 1}))[-1], Finished)


def test_a_figure_that_no_validation_can_have_is_refused(tmp_path: Path, tiny_events: list[Event]) -> None:
    """Nobody rated an anime: without a best, patience would never end the run. The corrected command starts it."""
    events = [replace(event, rating=None) if event.medium == "anime" else event for event in tiny_events]
    build_shards([str(write_csv(tmp_path / "e.csv", events))], tmp_path / "data", window_len=32, split="users:0.2")
    wrong = "no user of the validation split.*tasks with targets: anime_watch, manga_watch, manga_rating;"
    with pytest.raises(ConfigError, match=wrong):
        drain(train_steps(tmp_path / "data", tmp_path / "run", {**GIVEN, "monitor": "anime_rating"}))
    last = drain(train_steps(tmp_path / "data", tmp_path / "run", {**GIVEN, "epochs": 1}))[-1]
    assert isinstance(last, Finished)
