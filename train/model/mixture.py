"""P(item at t) at scoring: a mixture of the model's softmax and of simple distributions, the parts.

The softmax gives too little to items that it cannot foresee: those that are new, or far from what the user has watched.
The parts are an equal share for every item, and the share of each item in what is popular at t, by half-life. How much
each counts is chosen on validation (`train/training/mixtures.py`).

Axes: N targets, V items of a medium, R rows of the features of popularity, K parts.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from train.model.popularity import HIDDEN, PopularityFeatures, PopularityRows
from train.terms.popularity import HALF_LIVES

ALL_PARTS = (True,) * (1 + len(HALF_LIVES))


def part_rows(rows: PopularityRows, features: PopularityFeatures) -> Tensor:
    """(N,): the row in which a target's parts see what is popular: that of its time, or the newest if it is hidden."""
    is_hidden_N = rows.time_N == HIDDEN
    if not is_hidden_N.any():
        return rows.row_N
    return torch.where(is_hidden_N, features.newest_row(), rows.row_N)


def part_probs(
    features: PopularityFeatures | None, medium: int, row_N: Tensor | None, left_NV: Tensor, used: Sequence[bool]
) -> Iterator[Tensor]:
    """(N, V) float32, for each part that is `used`: the equal share; with `features`, the shares of the counts in
    `row_N`.

    A part adds up to 1 over the items in `left_NV` (bool), the others have their share in proportion. Where none of
    `left_NV` was counted, a part is the equal share.
    """
    left_NV = left_NV.float()
    equal_NV = left_NV.sum(1, keepdim=True).clamp_min(1).reciprocal().expand(left_NV.shape)
    if used[0]:
        yield equal_NV
    if features is None or row_N is None:
        return
    for features_RV, is_used in zip(features.by_medium[medium], used[1:], strict=False):
        if is_used:
            counts_NV = features_RV.index_select(0, row_N).float().expm1()
            total_N1 = (counts_NV * left_NV).sum(1, keepdim=True)
            yield torch.where(total_N1 > 0, counts_NV / total_N1, equal_NV)


def log_mixture(logits_NV: Tensor, left_NV: Tensor, shares_NK: Tensor, parts: Iterable[Tensor]) -> Tensor:
    """(N, V): log P. `shares_NK` are those of the parts, the softmax of `logits_NV` has the rest.

    It adds up to 1 over the items in `left_NV`, as the parts do.
    """
    of_model_NV = logits_NV - logits_NV.masked_fill(~left_NV, -torch.inf).logsumexp(1, keepdim=True)
    of_parts_NV = torch.zeros_like(logits_NV)
    for share_N, part_NV in zip(shares_NK.unbind(1), parts, strict=True):
        of_parts_NV.addcmul_(share_N[:, None], part_NV)
    return torch.logaddexp(of_model_NV + (1 - shares_NK.sum(1, keepdim=True)).log(), of_parts_NV.log())
