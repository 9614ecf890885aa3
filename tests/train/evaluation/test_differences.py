"""Which baselines the model is compared with, and how the differences are resampled."""

import numpy as np
import pytest

from train.evaluation.bootstrap import bootstrap_means
from train.evaluation.differences import best_of_families, differences
from train.evaluation.fitting import Fitted, SystemKey

FAMILIES = {"popularity": "popularity", "recent": "popularity", "chain": "chain", "mean": "mean", "svd": "svd"}
ON_TEST: dict[SystemKey, np.ndarray] = {
    ("model", "given"): np.full(2, 0.9),
    ("popularity", "not used"): np.full(2, 0.8),
    ("recent", "given"): np.full(2, 0.1),
    ("recent", "hidden"): np.full(2, 0.1),
    ("chain", "not used"): np.full(2, 0.2),
}


def fitted(num_cases: int = 4) -> Fitted:
    """Cases of the media 0, 0, 1, 1; the second case has no rating."""
    gains: dict[SystemKey, np.ndarray] = {
        ("popularity", "not used"): np.array([0.1, 0.1, 0.1, 0.1]),
        ("recent", "given"): np.array([0.9, 0.9, 0.0, 0.0]),
        ("recent", "hidden"): np.array([0.2, 0.2, 0.0, 0.0]),
        ("chain", "not used"): np.array([0.3, 0.3, 0.4, 0.4]),
    }
    squares: dict[SystemKey, np.ndarray] = {
        ("mean", "not used"): np.array([4.0, 1.0, 1.0]),
        ("svd", "not used"): np.array([1.0, 3.0, 3.0]),
    }
    return Fitted(
        (), (), (),
        np.array([0, 0, 1, 1])[:num_cases], np.array([True, False, True, True])[:num_cases],
        FAMILIES,
        {key: of[:num_cases] for key, of in gains.items()}, {key: of[:num_cases] for key, of in squares.items()},
    )  # fmt: skip


def names(*args: object) -> list[str]:
    return [name for name, _ in best_of_families(fitted(), *args, ON_TEST)]  # type: ignore[arg-type]


def test_validation_alone_chooses_the_baseline_of_each_family_and_the_best_of_all() -> None:
    """Popularity is the best on test here, and is not chosen. A baseline that knows the time competes only if the model
    does; those of a medium are chosen on its own cases."""
    assert names("ndcg@10", "given", None) == ["recent", "chain"]
    assert names("ndcg@10", "hidden", None) == ["chain", "popularity"]
    assert names("ndcg@10", "given", 0) == ["recent", "chain"]
    assert names("ndcg@10", "given", 1) == ["chain", "popularity"]
    assert names("ndcg@10", "given", 2) == ["recent", "chain"], "a medium without a case takes those of all"


def test_of_ratings_the_lowest_error_is_the_best() -> None:
    """On the rated cases of the medium."""
    assert names("rmse", "given", None) == ["mean", "svd"]
    assert names("rmse", "given", 0) == ["svd", "mean"]
    assert names("rmse", "given", 1) == ["mean", "svd"]


def test_without_a_validation_case_the_test_decides() -> None:
    """Which favours the baselines; the protocol says that there were 0 users."""
    chosen = best_of_families(fitted(0), "ndcg@10", "given", None, ON_TEST)
    assert chosen == [("popularity", "not used"), ("chain", "not used")]


@pytest.mark.parametrize("root", [False, True])
def test_a_difference_is_paired_over_users(root: bool) -> None:
    """A model that is better by the same amount for every user has no spread; each resample draws one set of users."""
    rng = np.random.default_rng(0)
    base, other = rng.random(50), rng.random(50)
    values: dict[SystemKey, np.ndarray] = {
        ("model", "given"): base + (0 if root else 0.25), ("same", "not used"): base, ("other", "not used"): other
    }  # fmt: skip
    baselines: list[SystemKey] = [("same", "not used"), ("other", "not used")]
    found = dict(differences(values, ("model", "given"), baselines, lambda v: bootstrap_means(v, 200, 3), root=root))
    same, unlike = (found[key] for key in baselines)
    assert (same.low, same.value, same.high) == pytest.approx((0, 0, 0) if root else (0.25, 0.25, 0.25))
    means = bootstrap_means(np.stack([values["model", "given"], other], axis=1), 200, 3)
    apart = np.diff(np.sqrt(means) if root else means, axis=1)[:, 0] * -1
    assert (unlike.low, unlike.high) == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])))
