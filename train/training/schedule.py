"""How long a run is and what it does when: steps, learning rate, validations, and from when on patience counts."""

import math
from dataclasses import dataclass

from train.config import TrainConfig

_LEAST_VALIDATED = 20  # steps: of a tiny dataset an epoch says nothing
_LEAST_TRAINED = 100  # steps before patience counts


@dataclass(frozen=True)
class Schedule:
    """What follows from the options and the number of steps in an epoch; all in steps (optimizer updates)."""

    num_steps: int
    steps_per_epoch: int
    warm_up: int  # over which the rate rises
    validate_every: int
    patient_from: int  # an earlier validation that is no better does not count

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: int) -> "Schedule":
        num_steps = config.steps or config.epochs * steps_per_epoch
        warm_up = min(config.warm_up_steps, num_steps // 10, 3 * steps_per_epoch)
        return cls(
            num_steps,
            steps_per_epoch,
            warm_up,
            validate_every=config.validate_every or max(steps_per_epoch, _LEAST_VALIDATED),
            patient_from=max(2 * warm_up, _LEAST_TRAINED),
        )


def learning_rate(config: TrainConfig, schedule: Schedule, step: int) -> float:
    """The rate of update `step` (from 0): a linear rise, then the peak, then half a cosine down to a share of the peak.

    The fall takes the last `decay_share` of the steps, or what the warm-up leaves of them.
    """
    num_steps, warm_up = schedule.num_steps, schedule.warm_up
    if step < warm_up:
        return config.learning_rate * (step + 1) / (warm_up + 1)
    if not config.decay_share:
        return config.learning_rate
    decay = max(min(round(config.decay_share * num_steps), num_steps - warm_up), 1)
    progress = (step - (num_steps - decay)) / max(1, decay - 1)
    cosine = (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2
    return config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)
