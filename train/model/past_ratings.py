"""What the rating head gets from the events of a history and their ratings, made on the host.

Axes: B windows, T tokens, N targets of a rating task, X = 7 numbers that a target's rating depends on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamfeat.kernels import residuals
from streamfeat.kernels.objectives import Asked, Shown
from streamfeat.kernels.residuals import NUM_FIGURES, RatingTable
from streamfeat.schema import PLANNED

AnyArray = TypeVar("AnyArray", NDArray[Any], Tensor)

NUM_KNOWN = NUM_FIGURES + 1  # X: ln(ratings of the asked item + 1) - 3, then the figures of `kernels.residuals`


@dataclass(frozen=True)
class Evidence:
    """The events in view of a micro-batch and the residuals of their ratings."""

    table: RatingTable
    in_table_BT: NDArray[np.bool_]  # whether the token's rating, if it has one, is in the table
    in_view_BT: NDArray[np.bool_]  # events that are neither planned nor masked
    residual_BT: NDArray[np.float32]  # of the rated events in view; 0 elsewhere
    figures_BTF: NDArray[np.float32]  # (B, T, 6): of the history of the event that is asked at the token

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        table: RatingTable,
        in_table: NDArray[np.bool_],
        status_mask: int,
        *,
        causal: bool,
    ) -> "Evidence":
        """The evidence in the arrays of a batch."""
        shown = Shown(*(np.ascontiguousarray(arrays[name]) for name in Shown._fields))
        asked = Asked(*(np.ascontiguousarray(arrays[name]) for name in Asked._fields))
        shape, num_items = shown.item.shape, len(table.num_V)
        in_view = is_in_view(shown.item, shown.status, num_items, status_mask)
        residual, figures = np.empty(shape, np.float32), np.empty((*shape, NUM_FIGURES), np.float32)
        own_sum, own_num = np.zeros(num_items), np.zeros(num_items)
        residuals.residuals(table, causal, shown, asked, in_view, in_table, own_sum, own_num, residual)
        figures_of = residuals.figures_before if causal else residuals.figures_around
        figures_of(shown, residual, in_view & shown.rating_known, figures)
        return cls(table, in_table, in_view, residual, figures)


def is_in_view(item: AnyArray, status: AnyArray, num_items: int, status_mask: int) -> AnyArray:
    """Whether tokens are events in view. The targets of a masked objective are not: their status is masked."""
    in_view: AnyArray = (item < num_items) & (status != PLANNED) & (status != status_mask)
    return in_view


def log_counts(table: RatingTable, item_N: NDArray[np.integer], own_N: NDArray[Any] | int = 0) -> NDArray[np.float32]:
    """(N,): ln(n + 1) - 3 of the training ratings of each item, without `own_N` of them."""
    counts: NDArray[np.float32] = np.log1p(np.maximum(table.num_V[item_N] - own_N, 0)).astype(np.float32) - np.float32(
        3
    )
    return counts
