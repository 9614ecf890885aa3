"""Evaluates a run and its baselines: each ranks the whole catalogue for every held-out event."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamfeat.errors import ConfigError, DataError
from streamfeat.progress import Progress
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.layout import USERS
from streamfeat.store.tables import check_table
from train.evaluation.advice import RunFacts
from train.evaluation.cases import Cases, read_cases
from train.evaluation.figures import MODEL, Evaluation, Time
from train.evaluation.fitting import Fitted, fit_steps
from train.evaluation.horizon import Horizon, HorizonOutcome
from train.evaluation.report import Outcome, evaluation
from train.evaluation.tuning import Validation
from train.inference.scorer import Scorer
from train.runs.has_targets import check_targets
from train.runs.record import dataset_of
from train.terms.watched import read_training

KS = (1, 5, 10, 20, 100)

_Asked = tuple[Time, NDArray[np.int64] | None]  # whether the target's time is given; the times (n,), if given


def evaluate_steps(
    run: str | Path,
    dataset: str | Path | None = None,
    *,
    checkpoint: str = "best",
    ks: Sequence[int] = KS,
    seed: int = 0,
    num_bootstrap: int = 1000,
    horizon_days: float | None = None,
    batch_users: int = 256,
) -> Iterator[Progress | Evaluation]:
    """Yields progress and, last, an `Evaluation` of the run folder `run` on the held-out events of its dataset.

    `dataset` is the folder of the run's dataset (default: where it was when the run began). For each user with held-out
    events the target is the last event with an item target; with a split by time, the first one from the second cut on,
    of users with an event before it. The model gets all events before the target, those of validation included, and
    ranks the whole catalogue of the target's medium. A split by time is also asked for all items of the `horizon_days`
    from the cut on (default 14). `seed` decides the resamples and the baselines' initial weights. Memory holds
    `batch_users` rows of scores at a time and one number for each user and figure.

    Raises ConfigError if the dataset is not the run's or an option is wrong, DataError if no user has a held-out
    target, and the errors of `Scorer.of_run` and `HistoryReader`.
    """
    _check_options(ks, num_bootstrap, batch_users)
    dataset, manifest = dataset_of(run, dataset)
    check_targets(dataset, manifest)
    horizon = Horizon.of(manifest, horizon_days)
    scorer = Scorer.of_run(run, checkpoint=checkpoint)
    check_table(dataset, USERS, manifest.digests_of(USERS))
    held_out = read_held_out(dataset)
    by_time = manifest.time_split
    test_start = by_time.test_start - manifest.data_schema.time_origin if by_time else None
    num_held_out = by_time.test_users if by_time else int(np.count_nonzero(held_out.validation_events))
    outcome = Outcome(
        manifest,
        scorer.config,
        scorer.items.targets,
        checkpoint=scorer.checkpoint.name,
        exclude_seen=scorer.exclude_seen,
        ks=tuple(sorted(ks)),
        resamples=num_bootstrap,
        seed=seed,
    )
    with HistoryReader(dataset, manifest) as reader:
        offsets = manifest.data_schema.medium_offsets
        validation = Validation.read(reader, held_out, offsets, remove_seen=scorer.exclude_seen)
        fitted = yield from fit_steps(manifest, lambda: read_training(reader, held_out), validation, seed)
        done = 0
        yield Progress("scoring", done, num_held_out, "users")
        for cases, looked_at in read_cases(reader, held_out, batch_users, test_start):
            for medium, (low, high) in enumerate(itertools.pairwise(offsets)):
                of_medium = cases.of_items(low, high)
                if len(of_medium.item):
                    _score(outcome, scorer, fitted, of_medium, medium)
            done += looked_at
            yield Progress("scoring", done, num_held_out, "users")
        later = HorizonOutcome(manifest, horizon, scorer.items.targets, outcome.ks) if horizon else None
        if later is not None:
            yield from later.steps(reader, scorer, fitted.rankers, batch_users)
    if not outcome.num_users:
        more = {"users": "--split last:2, or hold out more users", "last": "--split users:0.1"}
        raise DataError(
            f"{dataset}: no user has a held-out event with an item target ({manifest.config.split}); build with "
            + more.get(manifest.config.split_rule.kind, "--split last:2, or an earlier cut")
        )
    # With a split by users only held-out users can have a target; otherwise every user can.
    asked = manifest.num_users if manifest.validation_targets == "last" else num_held_out
    facts = RunFacts.of(Path(run), manifest, scorer.config, held_out)
    found = evaluation(outcome, fitted, facts, users_without_target=asked - outcome.num_users)
    yield replace(found, horizon=tuple(later.lines(found.ranking[0].protocol)) if later else ())


def _check_options(ks: Sequence[int], num_bootstrap: int, batch_users: int) -> None:
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise ConfigError(f"ks: needs one or more different numbers from 1 up, for instance 1, 10, 100; got {list(ks)}")
    for name, value in (("num_bootstrap", num_bootstrap), ("batch_users", batch_users)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1; got {value}")


def _score(outcome: Outcome, scorer: Scorer, fitted: Fitted, cases: Cases, medium: int) -> None:
    """Adds to `outcome` the predictions of the model and of every baseline for cases whose targets are of `medium`."""
    outcome.add_cases(cases, medium)
    rows = cases.rated_rows()
    rated = cases.take(rows)
    told_or_not: list[_Asked] = [("given", cases.time), ("hidden", None)]
    unasked: list[_Asked] = [("not used", None)]
    for time, times in told_or_not:
        told = [None] * len(cases.item) if times is None else times.tolist()
        states = scorer.states(cases.histories, told, medium)
        log_probs = scorer.log_probs(states, medium, cases.histories, told, exclude_seen=False).cpu().numpy()
        outcome.add_scores(MODEL, time, cases, medium, log_probs)
        outcome.add_confidence(time, cases, medium, log_probs)
        items = torch.from_numpy(rated.item - outcome.medium_offsets[medium])[:, None]
        told_rated = [told[row] for row in rows]
        states = states[torch.from_numpy(rows).to(states.device)]
        predicted = scorer.ratings(rated.histories, told_rated, states, medium, items)[:, 0]
        outcome.add_ratings(MODEL, time, predicted.cpu().numpy().astype(np.float64))
    for ranker in fitted.rankers:
        for time, times in told_or_not if ranker.uses_time else unasked:
            outcome.add_scores(ranker.name, time, cases, medium, ranker.scores(cases.past, times, medium))
    for rater in fitted.raters:
        outcome.add_ratings(rater.name, "not used", rater.predict(rated.past, rated.item))
