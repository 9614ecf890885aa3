"""The model minus baselines on the same test targets. Which baselines: the best ones on validation.

Axes: N users, F figures, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from train.evaluation.bootstrap import Figure, with_intervals
from train.evaluation.figures import Compared, Time
from train.evaluation.fitting import Fitted, SystemKey

Values = Mapping[SystemKey, NDArray[np.float64]]


def best_of_families(
    fitted: Fitted, figure: Compared, time: Time, medium: int | None, on_test: Values
) -> list[SystemKey]:
    """The best baseline of each family, the best of all first, among those that know no more than `time` says.

    Best on the validation cases of the medium; on all of them if it is None or has none. Without any validation case,
    best on the test values `on_test`, which favours the baselines.
    """
    values = fitted.gains if figure == "ndcg@10" else fitted.squares
    of_medium = fitted.medium_C == medium if figure == "ndcg@10" else fitted.medium_C[fitted.rated_C] == medium
    rows = of_medium if of_medium.any() else np.ones(len(of_medium), np.bool_)
    sign = 1 if figure == "ndcg@10" else -1
    on_validation = {key: values[key][rows] for key in values} if rows.any() else on_test
    means = {
        key: sign * of.mean()
        for key, of in on_validation.items()
        if key[0] in fitted.families and key[1] in (time, "not used")
    }
    chosen: dict[str, SystemKey] = {}
    for key in sorted(means, key=lambda key: -means[key]):
        chosen.setdefault(fitted.families[key[0]], key)
    return list(chosen.values())


def differences(
    values: Values,
    model: SystemKey,
    baselines: Sequence[SystemKey],
    resampled: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    root: bool,
) -> Iterator[tuple[SystemKey, Figure]]:
    """Each of `baselines` with the model's mean of `values` (N,) minus its own; `root`: the roots of the means.

    `resampled` gives (R, F) means of (N, F) values; all systems are resampled with the same users.
    """
    values_NF = np.stack([values[model], *(values[key] for key in baselines)], axis=1)
    means_F, resampled_RF = values_NF.mean(0), resampled(values_NF)
    if root:
        means_F, resampled_RF = np.sqrt(means_F), np.sqrt(resampled_RF)
    figures = with_intervals(means_F[0] - means_F[1:], resampled_RF[:, :1] - resampled_RF[:, 1:])
    yield from zip(baselines, figures, strict=True)
