"""Expected calibration error compared with a loop over bins, and its values for good and bad probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.evaluation.calibration import calibrate

ANSWERS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.7, 1.0]), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=50)
@given(answers=ANSWERS, num_bins=st.integers(1, 8))
def test_calibration_equals_a_loop_over_bins(answers: list[tuple[float, bool]], num_bins: int) -> None:
    """Bins with equal numbers of users; users with equal confidences are in the bin of the first of them."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    ordered = sorted(answers, key=lambda answer: answer[0])
    bin_of: dict[float, int] = {}
    for place, (confidence, correct) in enumerate(ordered):
        number = bin_of.setdefault(confidence, place * min(num_bins, len(ordered)) // len(ordered))
        bins.setdefault(number, []).append((confidence, correct))
    expected = 0.0
    for members in bins.values():
        confidence = sum(c for c, _ in members) / len(members)
        accuracy = sum(a for _, a in members) / len(members)
        expected += len(members) / len(ordered) * abs(accuracy - confidence)
    found = calibrate(np.array([c for c, _ in answers]), np.array([a for _, a in answers]), num_bins=num_bins)
    assert found.error == pytest.approx(expected, abs=1e-12)
    assert [b.users for b in found.bins] == [len(members) for _, members in sorted(bins.items())]
    assert [(b.low, b.high) for b in found.bins] == [
        (min(m)[0], max(m)[0]) for _, m in sorted(bins.items())
    ]  # fmt: skip


def test_the_order_of_users_changes_nothing() -> None:
    """Users with equal confidences are in one bin."""
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.1, 0.2, 0.3, 0.31, 0.4], 200)
    correct = rng.random(200) < 0.3
    order = rng.permutation(200)
    assert calibrate(confidence, correct).bins == calibrate(confidence[order], correct[order]).bins


def test_chance_alone_is_told_apart_from_bad_probabilities() -> None:
    """Outcomes drawn from the probabilities have about the error of chance; doubled probabilities a far larger one."""
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.05, 0.45, 3000)
    correct = rng.random(3000) < truth
    good, bad = calibrate(truth, correct), calibrate(2 * truth, correct)
    assert 0.5 < good.error / good.error_if_calibrated < 1.6
    assert bad.error > 8 * bad.error_if_calibrated
    assert len(good.bins) == 15
    assert {b.users for b in good.bins} == {200}
