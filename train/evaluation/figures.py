"""What an evaluation says: lines of figures, each with the protocol under which it was reached.

`docs/evaluate.md` defines every figure and field, and the JSON that `Evaluation.to_json` gives.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from train.evaluation.bootstrap import Figure
from train.evaluation.calibration import Calibration

ALL_MEDIA = "all"
MODEL = "model"

Seen = Literal["removed", "kept", "not used"]
Time = Literal["given", "hidden", "not used"]


@dataclass(frozen=True)
class Protocol:
    """What has to be known of a figure before it is compared with another."""

    fingerprint: str  # of the dataset
    split: str  # as the dataset was built: last:2 or users:F
    target: str  # which event of a user is asked for
    medium: str  # of the targets; ALL_MEDIA: each ranked within its own
    catalogue: dict[str, int]  # medium → items that a target is ranked among
    users: int  # each has one target
    users_without_target: int  # of all media: left out, since they have none
    tied_share: float  # of the targets, those whose timestamp equals that of a neighbour in the history
    tie_rule: str  # of events with equal timestamps
    rank_ties: str  # of items with equal scores
    seen: Seen  # items of the history; the target itself is never removed
    time: Time  # of the target
    ks: tuple[int, ...]
    min_item_events: int
    min_user_events: int
    keep_planned: bool  # in the histories; they are never targets
    window_len: int  # tokens of a history that the model sees at most; baselines see all
    objective: str
    mask_policy: str | None  # masked objective only
    checkpoint: str
    resamples: int  # of users, behind every interval
    seed: int


@dataclass(frozen=True)
class RankingLine:
    """How a system ranks: hr@k, ndcg@k, mrr, and for each k the share of the catalogue among somebody's first k."""

    protocol: Protocol
    system: str
    figures: dict[str, Figure]
    coverage: dict[str, float]


@dataclass(frozen=True)
class RatingLine:
    """How far predicted ratings are off: rmse, mae, in rating units, over the targets that have one."""

    protocol: Protocol
    system: str
    figures: dict[str, Figure]


@dataclass(frozen=True)
class DifferenceLine:
    """The model's figure minus that of the best baseline, users resampled in pairs."""

    protocol: Protocol
    figure: Literal["ndcg@10", "rmse"]
    baseline: str  # the best on these targets
    difference: Figure


@dataclass(frozen=True)
class CalibrationLine:
    """Whether the model's P(watch at t) of its likeliest item means what it says."""

    protocol: Protocol
    calibration: Calibration


@dataclass(frozen=True)
class Evaluation:
    """The end of an evaluation."""

    ranking: tuple[RankingLine, ...]
    ratings: tuple[RatingLine, ...]
    differences: tuple[DifferenceLine, ...]
    calibration: tuple[CalibrationLine, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, those of a line's protocol beside its figures."""
        return {name: [{**line.pop("protocol"), **line} for line in lines] for name, lines in asdict(self).items()}
