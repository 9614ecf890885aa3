"""The targets of a micro-batch: which tokens have one. They are gathered on the host, so that the device never waits.

Task `<medium>_watch` asks for an item of its medium, task `<medium>_rating` for the rating of a given item.
Axes: B windows, T tokens, N targets of a task.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfeat.kernels.residuals import NUM_FIGURES
from streamfeat.schema import PLANNED, Schema
from train.model.cpu_attention import segment_starts
from train.model.loss import SeenItems
from train.model.past_ratings import Evidence, log_counts
from train.model.popularity import PopularityFeatures, PopularityRows, target_rows

Arrays = Mapping[str, NDArray[Any]]

# If shapes must not vary, targets are padded to the expected number times the first of these factors that is enough,
# or else to the number of tokens. In nearly all batches this is the same size, so torch compiles one graph.
_ROOM = (1.2, 2.0)
_CAPACITY_STEP = 128

_EVENT_DAMPING = 10  # sums over k events are divided by √(k + 10)


@dataclass(frozen=True)
class Past:
    """The history of each target of a rating task. A running sum of a window has one place more than tokens."""

    known_NX: Tensor  # float32: see past_ratings
    start_N: Tensor  # int32: its place in the running sums of all windows before its first event
    stop_N: Tensor  # int32: and after its last
    scale_N: Tensor  # float32: (events in view + 10)^-1/2


@dataclass(frozen=True)
class Targets:
    """The targets of one task. Padding, if any, comes last; it has weight 0 and token 0."""

    token_N: Tensor  # int64: the flat token whose state predicts the target
    item_N: Tensor  # int64: id inside the medium; in a rating task, of the rated item
    rating_N: Tensor  # float32: 0 in a watch task
    weight_N: Tensor  # float32
    seen: SeenItems | None  # watch tasks only: the items that the softmax leaves out
    past: Past | None  # rating tasks only
    user: NDArray[np.int32]  # (targets without padding,), on the host
    popularity: PopularityRows | None = None  # watch tasks only, if the model knows popularity


def task_names(media: tuple[str, ...]) -> tuple[str, ...]:
    """`<medium>_watch` and `<medium>_rating`, medium by medium."""
    return tuple(f"{medium}_{task}" for medium in media for task in ("watch", "rating"))


def find_targets(arrays: Arrays, schema: Schema) -> dict[str, NDArray[np.int64]]:
    """Task → the flat tokens that have a target of it, ascending. `arrays` may hold any number of windows."""
    item = rated_items(arrays)
    found = {}
    for medium, name in enumerate(schema.media):
        low, high = schema.medium_offsets[medium : medium + 2]
        of_medium = (item >= low) & (item < high)
        for task in ("watch", "rating"):
            weight = arrays["weight_item" if task == "watch" else "weight_rating"]
            found[f"{name}_{task}"] = np.flatnonzero((weight > 0) & of_medium)
    return found


def rated_items(arrays: Arrays) -> NDArray[np.int32]:
    """(B, T): the dense id of the item that a token's target is about. A token with only a rating target (masked
    objective) shows that item itself."""
    items: NDArray[np.int32] = np.where(arrays["weight_item"] > 0, arrays["target_item"], arrays["item"])
    return items


def weight_sums(arrays: Arrays, schema: Schema) -> dict[str, float]:
    """Task → sum of its weights, in float64. Loss sums of a global batch are divided by it."""
    return {
        task: float(_weights(arrays, task).reshape(-1)[tokens].sum(dtype=np.float64))
        for task, tokens in find_targets(arrays, schema).items()
    }


def gather_targets(
    arrays: Arrays,
    schema: Schema,
    evidence: Evidence,
    *,
    causal: bool,
    exclude_seen: bool,
    expected: Mapping[str, float] | None,
    popularity: PopularityFeatures | None = None,
) -> dict[str, Targets]:
    """Task → its targets, as CPU tensors; those of watch tasks in the order of their `popularity` rows, if given.

    `expected` is each task's expected share of tokens with a target. If given, targets are padded to a size that nearly
    always is the same. No target is dropped.
    """
    item = rated_items(arrays).reshape(-1)
    visible = visible_events(arrays, causal=causal)
    bounds = segment_bounds(arrays["segment"])
    gathered = {}
    for task, tokens in find_targets(arrays, schema).items():
        medium = schema.media.index(task.rpartition("_")[0])
        low, high = schema.medium_offsets[medium : medium + 2]
        padding = _capacity(len(tokens), item.size, expected[task]) - len(tokens) if expected else 0
        seen = rows = None
        if popularity and task.endswith("_watch"):
            row, told = target_rows(arrays, tokens, popularity, causal=causal)
            order = np.argsort(row, kind="stable")
            tokens = tokens[order]
            of_host = None if expected else row[order]
            rows = PopularityRows(_padded(row[order], padding), _padded(told[order], padding), of_host)
        if exclude_seen and task.endswith("_watch"):
            shown = arrays["item"].reshape(-1)
            events = np.flatnonzero(visible & (shown >= low) & (shown < high))
            longest = arrays["item"].shape[1] if expected else 0
            seen = _seen_items(events, shown[events] - low, tokens, bounds, causal, padding, longest, item.size)
        rating, past = arrays["target_rating"].reshape(-1)[tokens], None
        if task.endswith("_watch"):
            rating = np.zeros_like(rating)
        else:
            of_target = np.minimum(tokens + causal, item.size - 1)  # causal: the event of the next token
            own = evidence.in_table_BT.reshape(-1)[of_target]
            past = past_of(evidence, item[tokens], own, tokens, bounds, padding, causal=causal)
        gathered[task] = Targets(
            token_N=_padded(tokens, padding),
            item_N=_padded(item[tokens].astype(np.int64) - low, padding),
            rating_N=_padded(rating, padding),
            weight_N=_padded(_weights(arrays, task).reshape(-1)[tokens], padding),
            seen=seen,
            past=past,
            user=arrays["user"].reshape(-1)[tokens],
            popularity=rows,
        )
    return gathered


def past_of(
    evidence: Evidence,
    item_N: NDArray[np.integer],
    own_N: NDArray[Any],
    token_N: NDArray[np.int64],
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    padding: int = 0,
    *,
    causal: bool,
) -> Past:
    """The history of targets about the items `item_N` (dense ids), asked at the flat tokens `token_N`.

    `own_N` is the number of a target's own ratings in the table, 0 or 1; they are not counted. `bounds` are those of
    `segment_bounds`.
    """
    start = bounds[0][token_N]
    stop = token_N + 1 if causal else bounds[1][token_N]
    window = token_N // evidence.in_view_BT.shape[1]
    num_events = np.append(0, np.cumsum(evidence.in_view_BT))
    scale = (num_events[stop] - num_events[start] + _EVENT_DAMPING) ** -0.5
    known = np.column_stack(
        (log_counts(evidence.table, item_N, own_N), evidence.figures_BTF.reshape(-1, NUM_FIGURES)[token_N])
    )
    return Past(
        known_NX=torch.from_numpy(np.pad(known, ((0, padding), (0, 0)))),
        start_N=_padded((start + window).astype(np.int32), padding),
        stop_N=_padded((stop + window).astype(np.int32), padding),
        scale_N=_padded(scale.astype(np.float32), padding),
    )


def _weights(arrays: Arrays, task: str) -> NDArray[np.float32]:
    return arrays["weight_item" if task.endswith("_watch") else "weight_rating"]


def _capacity(count: int, num_tokens: int, share: float) -> int:
    for room in _ROOM:
        size = math.ceil(room * share * num_tokens / _CAPACITY_STEP) * _CAPACITY_STEP
        if count <= size < num_tokens:
            return size
    return num_tokens


def _padded(values: NDArray[Any], padding: int) -> Tensor:
    return torch.from_numpy(np.pad(values, (0, padding)))


def visible_events(arrays: Arrays, *, causal: bool) -> NDArray[np.bool_]:
    """(B * T,) bool: events whose item counts as seen. Planned events do not count. Under the masked objective, events
    whose item is the target do not count either."""
    visible: NDArray[np.bool_] = arrays["status"] != PLANNED
    if not causal:
        visible = visible & (arrays["weight_item"] == 0)
    return visible.reshape(-1)


def segment_bounds(segment_BT: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(B * T,) each: for every token, the first flat token of its segment and the one after the segment's last."""
    edges = np.append(np.flatnonzero(segment_starts(segment_BT)), segment_BT.size)
    lengths = np.diff(edges)
    return np.repeat(edges[:-1], lengths), np.repeat(edges[1:], lengths)


def _seen_items(
    events: NDArray[np.int64],
    items: NDArray[np.int32],
    tokens: NDArray[np.int64],
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]],
    causal: bool,
    padding: int,
    longest: int,
    num_tokens: int,
) -> SeenItems:
    """For each target a range of `events`, all of one medium: those of its segment; if causal, up to its own token."""
    first, end = bounds
    start = np.searchsorted(events, first[tokens])
    stop = np.searchsorted(events, tokens + 1 if causal else end[tokens])
    if longest == 0:  # shapes may vary: make the arrays as short as possible
        longest = int((stop - start).max(initial=0))
        num_tokens = len(items)
    listed = np.zeros(num_tokens + longest, np.int64)
    listed[: len(items)] = items
    return SeenItems(torch.from_numpy(listed), _padded(start, padding), _padded(stop, padding), torch.arange(longest))
