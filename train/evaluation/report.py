"""Turns scores into the lines of a report. It keeps one rank per user and computes figures when all users are done.

Axes: N users with one target each, V items of the medium, C users over all batches, F figures, R resamples.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamfeat.store.manifest import Manifest
from train.config import TrainConfig
from train.evaluation.advice import RunFacts, advice
from train.evaluation.bootstrap import bootstrap_means, with_intervals
from train.evaluation.calibration import calibrate
from train.evaluation.cases import Cases
from train.evaluation.differences import Values, best_of_families, differences
from train.evaluation.figures import (
    ALL_MEDIA,
    MODEL,
    CalibrationLine,
    Compared,
    DifferenceLine,
    Evaluation,
    Protocol,
    RankingLine,
    RatingLine,
    Seen,
    Time,
)
from train.evaluation.fitting import Fitted, SystemKey
from train.evaluation.ranking import TIE_RULE, Coverage, figure_names, figure_values, target_ranks, without_seen
from train.evaluation.tuning import COMPARED
from train.evaluation.verdict import verdicts

_Parts = list[NDArray[Any]]
_SEEN: tuple[Literal["removed", "kept"], ...] = ("removed", "kept")
_TIMES: tuple[Literal["given", "hidden"], ...] = ("given", "hidden")


class Outcome:
    """The predictions of all systems so far. Every system gets the same cases in the same order."""

    def __init__(
        self,
        manifest: Manifest,
        config: TrainConfig,
        item_targets: NDArray[np.int64],  # (items,): training events that target each item
        *,
        checkpoint: str,
        exclude_seen: bool,  # whether the model recommends only unseen items
        ks: tuple[int, ...],
        resamples: int,
        seed: int,
    ) -> None:
        self.manifest, self.config, self.checkpoint, self.exclude_seen = manifest, config, checkpoint, exclude_seen
        self.ks, self.resamples, self.seed = ks, resamples, seed
        self.medium_offsets = manifest.data_schema.medium_offsets
        self.item_targets = item_targets
        self.num_users = 0
        self.user: _Parts = []
        self.medium: _Parts = []
        self.tied: _Parts = []
        self.unseen: _Parts = []  # whether no training event targets the item
        self.rated: _Parts = []  # whether a target has a rating
        self.rating: _Parts = []  # of rated targets
        self.ranks: dict[tuple[SystemKey, Seen], _Parts] = defaultdict(list)
        self.coverage: dict[tuple[SystemKey, Seen], list[Coverage]] = {}
        self.predicted: dict[SystemKey, _Parts] = defaultdict(list)  # of rated targets
        self.confidence: dict[Time, _Parts] = defaultdict(list)
        self.correct: dict[Time, _Parts] = defaultdict(list)

    def add_cases(self, cases: Cases, medium: int) -> None:
        """Adds the users that are scored next. Their targets are of `medium`."""
        self.num_users += len(cases.item)
        self.user.append(cases.user)
        self.medium.append(np.full(len(cases.item), medium))
        self.tied.append(cases.tied)
        self.unseen.append(self.item_targets[cases.item] == 0)
        self.rated.append(~np.isnan(cases.rating))
        self.rating.append(cases.rating[cases.rated_rows()])

    def add_scores(self, system: str, time: Time, cases: Cases, medium: int, scores_NV: NDArray[np.floating]) -> None:
        """Adds a system's scores of the items of `medium`. `time` says whether it knew the target's time."""
        target = cases.item - self.medium_offsets[medium]
        self._add_ranks(((system, time), "kept"), medium, scores_NV, scores_NV, target)
        left_NV = without_seen(scores_NV, cases.past, self.medium_offsets[medium])
        self._add_ranks(((system, time), "removed"), medium, left_NV, scores_NV, target)

    def _add_ranks(
        self,
        key: tuple[SystemKey, Seen],
        medium: int,
        shown_NV: NDArray[np.floating],
        scores_NV: NDArray[np.floating],
        target_N: NDArray[np.int64],
    ) -> None:
        if key not in self.coverage:
            sizes = np.diff(self.medium_offsets)
            self.coverage[key] = [Coverage(int(size), self.ks) for size in sizes]
        self.coverage[key][medium].add(shown_NV)
        # A target that was seen before keeps its score: the target is never left out.
        target_N1 = target_N[:, None]
        np.put_along_axis(shown_NV, target_N1, np.take_along_axis(scores_NV, target_N1, 1), 1)
        self.ranks[key].append(target_ranks(shown_NV, target_N))

    def add_confidence(self, time: Time, cases: Cases, medium: int, log_probs_NV: NDArray[np.float32]) -> None:
        """Adds the model's probability of its likeliest item. A model that was trained without seen items leaves them
        out here, too."""
        low = self.medium_offsets[medium]
        left_NV = without_seen(log_probs_NV, cases.past, low) if self.exclude_seen else log_probs_NV
        probs_NV = np.exp(left_NV.astype(np.float64))
        total_N = probs_NV.sum(1)
        top_N = probs_NV.argmax(1)
        top_prob_N = np.take_along_axis(probs_NV, top_N[:, None], 1)[:, 0]
        # A user who has seen every item gets no recommendation; its confidence is 0.
        confidence_N = np.divide(top_prob_N, total_N, out=np.zeros_like(total_N), where=total_N > 0)
        self.confidence[time].append(confidence_N)
        self.correct[time].append((top_N == cases.item - low) & (total_N > 0))

    def add_ratings(self, system: str, time: Time, predicted: NDArray[np.float64]) -> None:
        """Adds the ratings that a system predicts for the cases whose target has a rating."""
        self.predicted[system, time].append(predicted)


def evaluation(outcome: Outcome, fitted: Fitted, facts: RunFacts, users_without_target: int) -> Evaluation:
    """The lines of all systems: over all media, and also for each medium if there are several."""
    lines = _Lines(outcome, fitted, users_without_target)
    populations = list(lines.populations())
    compared = tuple(line for of in populations for line in lines.differences(*of))
    found = tuple(verdicts(compared, "removed" if outcome.exclude_seen else "kept"))
    return Evaluation(
        verdicts=found,
        advice=advice(found, facts),
        ranking=tuple(line for of in populations for line in lines.ranking(*of)),
        ratings=tuple(line for of in populations for line in lines.ratings(*of)),
        differences=compared,
        calibration=tuple(line for of in populations for line in lines.calibration(*of)),
        baselines=tuple(fitted.lines()),
        left_out=fitted.left_out,
    )


class _Lines:
    """An outcome with its parts joined over all cases, and the lines of the report."""

    def __init__(self, outcome: Outcome, fitted: Fitted, users_without_target: int) -> None:
        self._outcome, self._fitted = outcome, fitted
        self._users_without_target = users_without_target
        # Resamples draw users by place. In the order of user ids, the batches have no effect on the result.
        order = np.argsort(np.concatenate(outcome.user))
        rated_C = np.concatenate(outcome.rated)
        order_rated = np.argsort(np.concatenate(outcome.user)[rated_C])
        self._medium_C = np.concatenate(outcome.medium)[order]
        self._tied_C = np.concatenate(outcome.tied)[order]
        self._unseen_C = np.concatenate(outcome.unseen)[order]
        self._rated_C = rated_C[order]
        self._rating = np.concatenate(outcome.rating)[order_rated].astype(np.float64)
        self._ranks = {key: np.concatenate(parts)[order] for key, parts in outcome.ranks.items()}
        self._predicted = {key: np.concatenate(parts)[order_rated] for key, parts in outcome.predicted.items()}
        self._confidence = {time: np.concatenate(parts)[order] for time, parts in outcome.confidence.items()}
        self._correct = {time: np.concatenate(parts)[order] for time, parts in outcome.correct.items()}

    def populations(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """(name, (C,) whether a case belongs to it) of all media together, then of each medium that has a case."""
        yield ALL_MEDIA, np.ones(len(self._medium_C), np.bool_)
        media = self._outcome.manifest.data_schema.media
        for medium, name in enumerate(media):
            chosen_C = self._medium_C == medium
            if len(media) > 1 and chosen_C.any():
                yield name, chosen_C

    def ranking(self, name: str, chosen_C: NDArray[np.bool_]) -> Iterator[RankingLine]:
        ks = self._outcome.ks
        for ((system, time), seen), rank_C in self._ranks.items():
            values = figure_values(rank_C[chosen_C], ks)
            figures = with_intervals(values.mean(0), self._resampled(values))
            yield RankingLine(
                self._protocol(name, chosen_C, seen=seen, time=time, ks=ks),
                system,
                dict(zip(figure_names(ks), figures, strict=True)),
                self._coverage(self._outcome.coverage[(system, time), seen], name),
            )

    def ratings(self, name: str, chosen_C: NDArray[np.bool_]) -> Iterator[RatingLine]:
        if not (chosen_C & self._rated_C).any():
            return
        for (system, time), error in self._errors(chosen_C).items():
            values = np.stack((error**2, np.abs(error)), axis=1)
            means, resampled = values.mean(0), self._resampled(values)
            for array in (means, resampled):
                array[..., 0] = np.sqrt(array[..., 0])
            rmse, mae = with_intervals(means, resampled)
            yield RatingLine(
                self._protocol(name, chosen_C & self._rated_C, time=time), system, {"rmse": rmse, "mae": mae}
            )

    def differences(self, name: str, chosen_C: NDArray[np.bool_]) -> Iterator[DifferenceLine]:
        media = self._outcome.manifest.data_schema.media
        medium = None if name == ALL_MEDIA else media.index(name)
        for seen in _SEEN:
            gains = {
                system: figure_values(rank_C[chosen_C], (COMPARED,))[:, 1]
                for (system, of), rank_C in self._ranks.items()
                if of == seen
            }
            for time in _TIMES:
                protocol = self._protocol(name, chosen_C, seen=seen, time=time, ks=(COMPARED,))
                yield from self._compared(protocol, "ndcg@10", gains, medium)
        rated_C = chosen_C & self._rated_C
        if rated_C.any():
            squares = {system: error**2 for system, error in self._errors(chosen_C).items()}
            for time in _TIMES:
                yield from self._compared(self._protocol(name, rated_C, time=time), "rmse", squares, medium)

    def _compared(
        self, protocol: Protocol, figure: Compared, values: Values, medium: int | None
    ) -> Iterator[DifferenceLine]:
        families = self._fitted.families
        chosen = best_of_families(self._fitted, figure, protocol.time, medium, values)
        found = differences(values, (MODEL, protocol.time), chosen, self._resampled, root=figure == "rmse")
        for key, difference in found:
            yield DifferenceLine(protocol, figure, key[0], families[key[0]], key == chosen[0], difference)

    def calibration(self, name: str, chosen_C: NDArray[np.bool_]) -> Iterator[CalibrationLine]:
        seen: Seen = "removed" if self._outcome.exclude_seen else "kept"
        for time, confidence_C in self._confidence.items():
            found = calibrate(confidence_C[chosen_C], self._correct[time][chosen_C], seed=self._outcome.seed)
            yield CalibrationLine(self._protocol(name, chosen_C, seen=seen, time=time), found)

    def _errors(self, chosen_C: NDArray[np.bool_]) -> dict[SystemKey, NDArray[np.float64]]:
        """System → predicted minus given rating, of the chosen cases that have a rating."""
        chosen = chosen_C[self._rated_C]
        return {system: (predicted - self._rating)[chosen] for system, predicted in self._predicted.items()}

    def _resampled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return bootstrap_means(values, self._outcome.resamples, self._outcome.seed)

    def _coverage(self, by_medium: Sequence[Coverage], name: str) -> dict[str, float]:
        media = self._outcome.manifest.data_schema.media
        chosen = by_medium if name == ALL_MEDIA else [by_medium[media.index(name)]]
        covered_KV = np.concatenate([coverage.covered_KV for coverage in chosen], axis=1)
        return {f"coverage@{k}": float(share) for k, share in zip(self._outcome.ks, covered_KV.mean(1), strict=True)}

    def _protocol(
        self,
        name: str,
        chosen_C: NDArray[np.bool_],
        *,
        time: Time,
        seen: Seen = "not used",
        ks: tuple[int, ...] = (),
    ) -> Protocol:
        manifest, config = self._outcome.manifest, self._outcome.config
        sizes = {scale.medium: scale.items for scale in manifest.scales}
        by_time = manifest.time_split
        return Protocol(
            fingerprint=manifest.fingerprint,
            split=manifest.config.split,
            test_start=by_time.test_start if by_time else None,
            target="first event with an item target from the cut on" if by_time else "last event with an item target",
            medium=name,
            catalogue=sizes if name == ALL_MEDIA else {name: sizes[name]},
            users=int(np.count_nonzero(chosen_C)),
            users_without_target=self._users_without_target,
            new_users=by_time.new_users if by_time else 0,
            targets=int(np.count_nonzero(chosen_C)),
            horizon_days=None,
            unseen_targets=int(np.count_nonzero(self._unseen_C & chosen_C)),
            tied_share=float(self._tied_C[chosen_C].mean()),
            tie_rule=manifest.tie_rule,
            rank_ties=TIE_RULE,
            seen=seen,
            time=time,
            ks=ks,
            min_item_events=manifest.config.min_item_events,
            min_user_events=manifest.config.min_user_events,
            keep_planned=manifest.config.keep_planned,
            window_len=manifest.data_schema.window_len,
            objective=config.objective,
            mask_policy=config.mask_policy if config.objective == "masked" else None,
            checkpoint=self._outcome.checkpoint,
            tuned_users=len(self._fitted.medium_C),
            resamples=self._outcome.resamples,
            seed=self._outcome.seed,
        )
