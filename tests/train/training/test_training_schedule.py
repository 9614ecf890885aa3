"""How long a run is, how its learning rate goes, and from when on patience counts."""

import pytest

from train.config import TrainConfig
from train.training.schedule import Schedule, learning_rate


@pytest.mark.parametrize(("num_steps", "warm_up"), [(5, 0), (100, 10), (600, 60), (5000, 60)])
def test_the_rate_rises_stays_and_falls_to_its_share(num_steps, warm_up):
    """Warm-up of min(60, steps / 10), the peak, and over the last share of the steps down to the very last one."""
    config = TrainConfig(learning_rate=2e-3, final_learning_rate=0.02, decay_share=0.3, steps=num_steps)
    schedule = Schedule.of(config, 1000)
    rates = [learning_rate(config, schedule, step) for step in range(num_steps)]
    first = num_steps - round(0.3 * num_steps)
    assert rates[:warm_up] == sorted(rates[:warm_up])
    assert min(rates) > 0
    assert rates[warm_up : first + 1] == [pytest.approx(2e-3)] * (first + 1 - warm_up)
    assert rates[first:] == sorted(rates[first:], reverse=True)
    assert len(set(rates[first:])) == num_steps - first
    assert rates[-1] == pytest.approx(4e-5)


@pytest.mark.parametrize(("share", "constant"), [(0.0, 90), (1.0, 1)])
def test_the_decay_may_take_all_steps_after_the_warm_up_or_none(share, constant):
    """A share of 1 is a cosine from the peak on; 0 stays there."""
    config = TrainConfig(learning_rate=2e-3, decay_share=share, steps=100)
    schedule = Schedule.of(config, 1000)
    rates = [learning_rate(config, schedule, step) for step in range(100)]
    assert rates.count(2e-3) == constant
    assert rates.index(2e-3) == 10


def test_a_single_step_has_the_full_rate():
    """Nothing is divided by zero."""
    config = TrainConfig(learning_rate=2e-3, steps=1)
    assert learning_rate(config, Schedule.of(config, 1), 0) == 2e-3


@pytest.mark.parametrize(
    ("given", "steps_per_epoch", "expected"),
    [
        # A tiny dataset: three steps an epoch. Nothing counts before step 100, and 20 steps lie between validations.
        ({}, 3, Schedule(192, 3, warm_up=9, validate_every=20, patient_from=100)),
        ({}, 500, Schedule(32_000, 500, warm_up=60, validate_every=500, patient_from=120)),
        ({"steps": 50, "validate_every": 7}, 30, Schedule(50, 30, warm_up=5, validate_every=7, patient_from=100)),
        ({"warm_up_steps": 900}, 500, Schedule(32_000, 500, warm_up=900, validate_every=500, patient_from=1800)),
    ],
)
def test_what_is_not_typed_follows_from_the_steps_of_an_epoch(given, steps_per_epoch, expected):
    """Warm-up: at most a tenth of all steps and three epochs. Typed options win."""
    assert Schedule.of(TrainConfig(**given), steps_per_epoch) == expected
