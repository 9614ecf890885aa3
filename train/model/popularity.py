"""The term of the watch logits for what is popular at the target's time.

logits[n, i] += Σ_f coefficients[n, f] · features[f, row n, i]. The features are logarithms of decayed counts of item i
before the target's time (`train/terms/popularity.py`); the coefficients follow from the state, and from whether the
time is told.

Axes: N targets, D width, F features, R rows (edges of time bins, and a row of zeros), V items of a medium.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfeat.schema import Schema
from train.model.cpu_attention import segment_starts
from train.terms.popularity import NUM_FEATURES, PopularityCounts
from train.terms.terms import Terms

TOLD, HIDDEN = 0, 1

# At the start, by half-life. AdamW moves every parameter by about the same step, so a factor makes these move faster.
_START = (0.3, 0.1, 0.2, 0.0, 0.0, 0.0)
_FACTOR = 5.0


_MOST_ROWS_ALONE = 16


@dataclass(frozen=True)
class PopularityFeatures:
    """The features of all items, in memory. A row is made when a time first asks for it.

    A question about one time needs one row. With 60,000 items all rows take 5 s and 1.1 GB.
    """

    counts: PopularityCounts
    by_medium: tuple[Tensor, ...]  # (F, R, V of the medium), on the model's device; the last row is 0
    is_made: NDArray[np.bool_]  # (R,); the other rows are 0, and take no memory on a CPU

    @classmethod
    def of(cls, counts: PopularityCounts, schema: Schema, device: torch.device) -> "PopularityFeatures":
        """The features on `device`, without a row yet."""
        sizes = np.diff(schema.medium_offsets).tolist()
        by_medium = tuple(
            torch.zeros(NUM_FEATURES, len(counts.edges) + 1, size, dtype=feature_type(device), device=device)
            for size in sizes
        )
        return cls(counts, by_medium, np.arange(len(counts.edges) + 1) == len(counts.edges))

    def make(self, rows: NDArray[np.int64] | None = None) -> None:
        """Makes the `rows` (default: all) that are missing. Each call goes through all events, so if many are missing,
        all rows are made at once."""
        missing = np.flatnonzero(~self.is_made)
        if rows is not None:
            asked = np.intersect1d(rows, missing)
            missing = asked if len(asked) <= _MOST_ROWS_ALONE else missing
        if not len(missing):
            return
        sizes = [features_FRV.shape[2] for features_FRV in self.by_medium]
        for row, features_FV in zip(missing, self.counts.features(sum(sizes), missing), strict=True):
            parts = torch.split(torch.from_numpy(features_FV), sizes, 1)
            for medium, part_FV in zip(self.by_medium, parts, strict=True):
                medium[:, row] = part_FV
        self.is_made[missing] = True

    @property
    def empty_row(self) -> int:
        """The row of zeros, for a target before which no time is known."""
        return len(self.counts.edges)

    def newest_row(self) -> int:
        """The row of the last edge, before which all events lie. Makes it if it is missing."""
        row = len(self.counts.edges) - 1
        self.make(np.array([row]))
        return row

    def rows_at(self, time: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(N,): the row of each time, the empty one where it is not `known`. Makes rows that are missing."""
        rows = np.where(known, self.counts.row_of(time), self.empty_row)
        if not self.is_made[rows].all():
            self.make(rows)
        return rows

    def __deepcopy__(self, memo: object) -> "PopularityFeatures":
        return self  # a row never changes once it is made, and they are large


def feature_type(device: torch.device) -> torch.dtype:
    """float16 on a GPU, to save its memory. float32 on a CPU: converting cost a tenth of a step with 10,000 items."""
    return torch.float16 if device.type == "cuda" else torch.float32


def table_bytes(terms: Terms | None, num_items: int, device: torch.device) -> int:
    """Bytes that the `PopularityFeatures` of a run take on the device."""
    if terms is None:
        return 0
    return NUM_FEATURES * (len(terms.popularity.edges) + 1) * num_items * feature_type(device).itemsize


@dataclass(frozen=True)
class PopularityRows:
    """What the term reads for each target of a task."""

    row_N: Tensor  # int64
    time_N: Tensor  # int64: TOLD or HIDDEN
    row: NDArray[np.int64] | None  # `row_N` on the host; None: shapes may not depend on it (GPU)


def target_rows(
    arrays: Mapping[str, NDArray[Any]], tokens: NDArray[np.int64], features: PopularityFeatures, *, causal: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) each: the row of the targets at the flat `tokens`, and TOLD or HIDDEN.

    A told target reads at its own time: the told time (causal), or the token's (masked). A hidden one reads at the last
    time in its segment before it that the model sees.
    """
    time, known = arrays["time"].reshape(-1), arrays["time_known"].reshape(-1)
    if causal:
        told = arrays["told_time_known"].reshape(-1)[tokens].astype(np.bool_)
        told_time = arrays["told_time"].reshape(-1)[tokens]
    else:
        told, told_time = known[tokens].astype(np.bool_), time[tokens]
    last = _last_known(arrays["segment"], known)[tokens]
    when = np.where(told, told_time, time[last])
    return features.rows_at(when.astype(np.int64), told | (last >= 0)), np.where(told, TOLD, HIDDEN)


def _last_known(segment: NDArray[np.int32], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(B * T,): the last flat token of the same segment, up to each token, whose time is known; -1 if there is none."""
    places = np.arange(known.size)
    first = np.maximum.accumulate(np.where(segment_starts(segment), places, 0))
    last = np.maximum.accumulate(np.where(known, places, -1))
    return np.where(last >= first, last, -1)


class PopularityTerm(nn.Module):
    """The coefficients of the features: a part for each medium and for told or hidden times, and one from the state."""

    by_medium = ("bias_M2F",)  # see carry.py

    def __init__(self, schema: Schema, width: int) -> None:
        super().__init__()
        start = torch.zeros(len(schema.media), 2, NUM_FEATURES)
        start[:, TOLD] = torch.tensor(_START) / _FACTOR
        self.bias_M2F = nn.Parameter(start)
        self.weight_FD = nn.Parameter(torch.zeros(NUM_FEATURES, width))  # no matrix of a linear layer: not decayed

    def forward(self, state_ND: Tensor, medium: int, rows: PopularityRows) -> Tensor:
        """(N, F) float32."""
        of_time = self.bias_M2F[medium].index_select(0, rows.time_N) * _FACTOR
        return of_time + (state_ND @ self.weight_FD.T).float()


class TermOfTargets(NamedTuple):
    """All that the term of some targets is made of."""

    coefficients_NF: Tensor
    row_N: Tensor
    features_FRV: Tensor
    row: NDArray[np.int64] | None  # as in `PopularityRows`

    def of(self, targets: slice) -> "TermOfTargets":
        """The part for some of the targets."""
        row = None if self.row is None else self.row[targets]
        return TermOfTargets(self.coefficients_NF[targets], self.row_N[targets], self.features_FRV, row)


def add_popularity(logits_NV: Tensor, term: TermOfTargets) -> None:
    """Adds the term to `logits_NV`."""
    if term.row is not None:
        for row, part in _runs(term.row):
            logits_NV[part].addmm_(term.coefficients_NF[part], term.features_FRV[:, row].float())
        return
    # A compiler joins these operations into one.
    for coefficient_N, features_RV in zip(term.coefficients_NF.unbind(1), term.features_FRV.unbind(0), strict=True):
        logits_NV += coefficient_N[:, None] * features_RV.index_select(0, term.row_N)


def popularity_gradients(grad_logits_NV: Tensor, term: TermOfTargets) -> Tensor:
    """(N, F): the gradients of the coefficients."""
    if term.row is not None:
        found = [grad_logits_NV[part] @ term.features_FRV[:, row].float().T for row, part in _runs(term.row)]
        return torch.cat([grad_logits_NV.new_empty(0, len(term.features_FRV)), *found])
    features = [features_RV.index_select(0, term.row_N) for features_RV in term.features_FRV.unbind(0)]
    return torch.stack([(grad_logits_NV * features_NV).sum(1) for features_NV in features], 1)


def _runs(row: NDArray[np.int64]) -> list[tuple[int, slice]]:
    """The parts of `row` with equal values, in order. Targets are sorted by row, so there are few."""
    edges = np.append(np.flatnonzero(np.diff(row, prepend=-1)), len(row)).tolist()
    return [(int(row[first]), slice(first, last)) for first, last in itertools.pairwise(edges)]
