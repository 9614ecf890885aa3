"""The results of an evaluation: lines of figures, each with the protocol by which it was measured.

`docs/evaluate.md` defines every figure and field, and the JSON of `Evaluation.to_json`.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from train.baselines.all import LeftOut
from train.evaluation.bootstrap import Figure
from train.evaluation.calibration import Calibration

ALL_MEDIA = "all"
MODEL = "model"

Seen = Literal["removed", "kept", "not used"]
Time = Literal["given", "hidden", "not used"]
Compared = Literal["ndcg@10", "rmse"]  # the figures by which the model is compared with baselines
Standing = Literal["better", "worse", "level"]


@dataclass(frozen=True)
class Protocol:
    """The conditions of a measurement. Two figures can be compared only if these agree."""

    fingerprint: str  # of the dataset
    split: str  # as the dataset was built
    test_start: int | None  # Unix seconds from which on targets lie, with a split by time
    target: str  # which event of a user is predicted
    medium: str  # of the targets; ALL_MEDIA: each target is ranked within its own medium
    catalogue: dict[str, int]  # medium → number of items among which a target is ranked
    horizon_days: float | None  # targets: all items of so many days from test_start on; None: one target a user
    users: int
    targets: int
    users_without_target: int  # over all media; they are left out
    new_users: int  # of these, users with a target, but without an event before test_start
    unseen_targets: int  # targets whose item no training event targets
    tied_share: float  # share of targets with the same timestamp as the event before or after
    tie_rule: str  # the order of events with equal timestamps
    rank_ties: str  # the rank of items with equal scores
    seen: Seen  # whether items of the history are removed; the target itself is never removed
    time: Time  # whether the target's time is given
    ks: tuple[int, ...]
    min_item_events: int
    min_user_events: int
    keep_planned: bool  # whether histories hold planned events; they are never targets
    window_len: int  # the model sees at most so many tokens of a history; baselines see all
    objective: str
    mask_policy: str | None  # masked objective only
    checkpoint: str
    tuned_users: int  # on whose validation events baselines were tuned and the best one chosen; 0: on the test events
    resamples: int  # of users, for every interval
    seed: int


@dataclass(frozen=True)
class RankingLine:
    """The ranking of a system: hr@k, ndcg@k, mrr (one target a user) or recall@k, ndcg@k, map@k (several), and for each
    k the share of items that are in any user's first k."""

    protocol: Protocol
    system: str
    figures: dict[str, Figure]
    coverage: dict[str, float]


@dataclass(frozen=True)
class RatingLine:
    """The errors of predicted ratings: rmse and mae in rating units, over the targets that have a rating."""

    protocol: Protocol
    system: str
    figures: dict[str, Figure]


@dataclass(frozen=True)
class DifferenceLine:
    """The model's figure minus that of a baseline; both are resampled with the same users."""

    protocol: Protocol
    figure: Compared
    baseline: str  # of its family the best on validation
    family: str
    is_best: bool  # the best of all families on validation
    difference: Figure


@dataclass(frozen=True)
class Verdict:
    """Whether the model is better than the baseline that was best on validation."""

    protocol: Protocol
    figure: Compared
    standing: Standing
    baseline: str
    difference: Figure  # the model's figure minus the baseline's
    unbeaten: tuple[str, ...]  # other families' baselines that the model is not better than
    text: str  # a sentence whose subject is the model


@dataclass(frozen=True)
class BaselineLine:
    """A fitted baseline: its settings, and what they reach on validation."""

    system: str
    family: str
    settings: dict[str, float | str]
    figure: Compared
    validation: dict[Time, float]  # the figure by whether the target's time is given; empty without a case


@dataclass(frozen=True)
class CalibrationLine:
    """How well the model's P(watch at t) of its likeliest item agrees with what users watch."""

    protocol: Protocol
    calibration: Calibration


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    verdicts: tuple[Verdict, ...]  # over all media: rankings by time, ratings
    advice: tuple[str, ...]  # what to try if a baseline is not beaten
    ranking: tuple[RankingLine, ...]
    ratings: tuple[RatingLine, ...]
    differences: tuple[DifferenceLine, ...]
    calibration: tuple[CalibrationLine, ...]
    baselines: tuple[BaselineLine, ...]
    left_out: tuple[LeftOut, ...]  # baselines that were not fitted
    horizon: tuple[RankingLine, ...] = ()  # split by time: all items of some days after the cut

    def to_json(self) -> dict[str, Any]:
        """Plain values. The fields of a line's protocol stand next to its figures."""
        return {name: [_flat(line) for line in lines] for name, lines in asdict(self).items()}


def _flat(line: dict[str, Any] | str) -> dict[str, Any] | str:
    return {**line.pop("protocol", {}), **line} if isinstance(line, dict) else line
