"""Invented batches in the shape that a `WindowStream` delivers, small enough to reason about."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamfeat.kernels.residuals import RatingTable
from streamfeat.schema import PLANNED, FloatCode, Schema
from streamfeat.store.manifest import MediumScales
from train.config import ModelConfig
from train.model.batch import BatchFacts
from train.model.targets import task_names
from train.model.transformer import EventTransformer
from train.terms.popularity import count_popularity
from train.terms.terms import Terms
from train.terms.transitions import count_transitions
from train.terms.watched import Watched

Arrays = dict[str, NDArray[Any]]

DAY = 86_400


@dataclass(frozen=True)
class Invented:
    """A batch, the facts it was made under, and the pieces of a model that fits it."""

    arrays: Arrays
    facts: BatchFacts
    scales: tuple[MediumScales, ...]
    item_targets: NDArray[np.int64]

    @property
    def rows(self) -> slice:
        return slice(0, len(self.arrays["window"]))

    def model(self, seed: int = 0, **shape: Any) -> EventTransformer:
        config = ModelConfig(**({"layers": 2, "width": 32, "heads": 2, "dropout": 0.0} | shape))
        return EventTransformer(config, self.facts, self.scales, self.item_targets, seed=seed)

    def with_facts(self, **changes: Any) -> "Invented":
        return replace(self, facts=replace(self.facts, **changes))

    def changed(self, change: Any) -> "Invented":
        """The same with `change(arrays)` applied to a copy of its arrays."""
        arrays = {name: array.copy() for name, array in self.arrays.items()}
        change(arrays)
        return replace(self, arrays=arrays)

    def segments(self) -> list[tuple[int, int, int]]:
        """(window, first token, one past its last) of every segment."""
        found = []
        for window, row in enumerate(self.arrays["segment"]):
            for segment in range(row.max() + 1):
                places = np.flatnonzero(row == segment)
                found.append((window, int(places[0]), int(places[-1]) + 1))
        return found

    def alone(self, window: int, start: int, stop: int, at: int = 0) -> "Invented":
        """Those tokens in a window of their own, from token `at` on, the rest PAD."""
        arrays = _padding(self.facts.schema, 1, self.arrays["item"].shape[1])
        for name, array in self.arrays.items():
            if array.ndim == 2:
                arrays[name][0, at : at + stop - start] = array[window, start:stop]
        arrays["segment"][0, at : at + stop - start] = 0
        return replace(self, arrays=arrays)


def invent(
    *,
    objective: str = "causal",
    policy: str = "disjoint",
    num_windows: int = 4,
    window_len: int = 32,
    items: tuple[int, ...] = (30, 20),
    mean_len: int = 9,
    fill: float = 0.9,
    exclude_seen: bool = True,
    seed: int = 0,
) -> Invented:
    """Histories of some `mean_len` events with ties in time, missing ratings and planned events, packed end to
    end; `fill` is the share of tokens that are not PAD."""
    rng = np.random.default_rng(seed)
    offsets = (0, *np.cumsum(items).tolist())
    schema = Schema(
        media=tuple(f"medium_{m}" for m in range(len(items))), medium_offsets=offsets, num_users=1000,
        window_len=window_len, time_dtype="uint32", time_origin=0, rating=FloatCode(dtype="float32"),
        completion=FloatCode(dtype="float32"), rating_max=10.0,
    )  # fmt: skip
    arrays = _padding(schema, num_windows, window_len)
    flat = {name: array.reshape(-1) for name, array in arrays.items() if array.ndim == 2}
    num_tokens, user, start = int(fill * num_windows * window_len), 0, 0
    while start < num_tokens:
        length = min(2 + int(rng.poisson(mean_len)), num_tokens - start)
        _write_history(flat, slice(start, start + length), schema, user, rng)
        start, user = start + length, user + 1
    _number_segments(arrays)
    facts = BatchFacts(
        schema=schema, time_min=0, time_max=500 * DAY, rating_mean=6.0, rating_std=2.0, causal=objective == "causal",
        relative=policy != "seed", exclude_seen=exclude_seen, seed=1,
        ratings=_ratings(offsets[-1], len(items), np.random.default_rng(seed + 1)), validates_last=False,
        target_shares=dict.fromkeys(task_names(schema.media), 0.3 if objective == "causal" else 0.1),
    )  # fmt: skip
    facts = replace(facts, terms=_terms(arrays, schema, facts.ratings)).on_device(torch.device("cpu"))
    _set_targets(arrays, schema, objective, policy, rng)
    scales = tuple(
        MediumScales(medium=name, items=n, events=100, targets=90, ratings=50, watch_entropy=2.0, rating_mean=6.0 + m,
                     rating_variance=4.0)
        for m, (name, n) in enumerate(zip(schema.media, items, strict=True))
    )  # fmt: skip
    return Invented(arrays, facts, scales, rng.integers(0, 50, offsets[-1]))


def _terms(arrays: Arrays, schema: Schema, ratings: RatingTable) -> Terms | None:
    """Tables of the events of a batch."""
    is_event = arrays["item"] < schema.num_items
    if not is_event.any():
        return None
    item, time = arrays["item"][is_event].astype(np.int64), arrays["time"][is_event]
    events = Watched(np.array([0, len(item)]), item, time, np.full(len(item), np.nan, np.float32))
    return Terms(
        count_popularity(lambda: iter([events]), int(time.min()), int(time.max()), schema.num_items),
        count_transitions(lambda: iter([events]), len(item), schema.num_items),
        ratings,
    )


def _ratings(num_items: int, num_media: int, rng: np.random.Generator) -> RatingTable:
    """A table that no ratings were counted for, of up to 1000 users."""
    return RatingTable(
        sum_V=rng.normal(0, 5, num_items).astype(np.float32),
        num_V=rng.integers(20, 40, num_items).astype(np.float32),
        bias_U=rng.normal(0, 0.5, 1000).astype(np.float32),
        mean_M=np.full(num_media, 6, np.float32),
        std_M=np.full(num_media, 2, np.float32),
    )


def _padding(schema: Schema, num_windows: int, window_len: int) -> Arrays:
    shape = (num_windows, window_len)
    arrays: Arrays = {
        "item": np.full(shape, schema.item_tokens.pad, np.int32),
        "user": np.full(shape, schema.user_tokens.pad, np.int32),
        "position": np.full(shape, schema.position_tokens.pad, np.int32),
        "medium": np.full(shape, schema.medium_tokens.pad, np.int32),
        "status": np.full(shape, schema.status_tokens.pad, np.int32),
        "segment": np.full(shape, -1, np.int32),
        "target_item": np.zeros(shape, np.int32),
        "window": np.arange(num_windows),
        "slot": np.arange(num_windows),
    }
    for name in ("time", "told_time"):
        arrays[name], arrays[f"{name}_known"] = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for name in ("rating", "completion"):
        arrays[name], arrays[f"{name}_known"] = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    for name in ("target_rating", "weight_item", "weight_rating"):
        arrays[name] = np.zeros(shape, np.float32)
    return arrays


def _write_history(flat: Arrays, at: slice, schema: Schema, user: int, rng: np.random.Generator) -> None:
    num = at.stop - at.start
    item = rng.integers(0, schema.num_items, num)
    flat["item"][at], flat["user"][at] = item, user
    flat["medium"][at] = np.searchsorted(schema.medium_offsets, item, side="right") - 1
    flat["position"][at] = (np.arange(num) - 1) % schema.window_len
    flat["status"][at] = rng.choice(5, num, p=(0.2, 0.2, 0.4, 0.1, 0.1))
    flat["time"][at] = np.cumsum(rng.choice([0, 1, 90, DAY, 30 * DAY], num)) + rng.integers(DAY)
    flat["time_known"][at] = True
    known = rng.random(num) < 0.6
    flat["rating"][at], flat["rating_known"][at] = np.where(known, rng.integers(1, 11, num), 0), known
    flat["completion"][at], flat["completion_known"][at] = rng.random(num), True
    first = at.start
    for name in ("item", "position", "medium", "status"):
        flat[name][first] = getattr(schema, f"{name}_tokens").cls
    for name in ("time", "rating", "completion"):
        flat[name][first], flat[f"{name}_known"][first] = 0, False


def _number_segments(arrays: Arrays) -> None:
    user, pad = arrays["user"], arrays["user"].max()
    change = np.zeros(user.shape, np.int32)
    change[:, 1:] = user[:, 1:] != user[:, :-1]
    arrays["segment"][:] = np.where(user == pad, -1, np.cumsum(change, axis=1))


def _set_targets(arrays: Arrays, schema: Schema, objective: str, policy: str, rng: np.random.Generator) -> None:
    is_event = arrays["item"] < schema.num_items
    has_item = is_event & (arrays["status"] != PLANNED)
    has_rating = has_item & arrays["rating_known"]
    if objective == "causal":
        next_same = np.zeros(is_event.shape, np.bool_)
        next_same[:, :-1] = arrays["segment"][:, 1:] == arrays["segment"][:, :-1]
        next_same &= arrays["segment"] >= 0
        later = {name: np.roll(array, -1, axis=1) for name, array in arrays.items() if array.ndim == 2}
        wants, wants_rating = next_same & np.roll(has_item, -1, axis=1), next_same & np.roll(has_rating, -1, axis=1)
        hidden = rng.random(arrays["segment"].shape)[:, :1] < 0.1
        arrays["told_time_known"][:] = next_same & ~hidden
        arrays["told_time"][:] = np.where(arrays["told_time_known"], later["time"], 0)
        _ask(arrays, wants, wants_rating, later["item"], later["rating"])
        return
    draw = rng.random(is_event.shape)
    if policy == "seed":
        wants, wants_rating = has_item & (draw < 0.3), has_rating & (draw < 0.3)
    else:
        wants, wants_rating = has_item & (draw < 0.2), has_rating & (draw >= 0.2) & (draw < 0.4)
    _ask(arrays, wants, wants_rating, arrays["item"].copy(), arrays["rating"].copy())
    picked = wants | wants_rating
    arrays["item"][wants] = schema.item_tokens.mask
    arrays["status"][picked] = schema.status_tokens.mask
    for name in ("rating", "completion"):
        arrays[name][picked], arrays[f"{name}_known"][picked] = 0, False
    if policy == "seed":
        arrays["time"][picked], arrays["time_known"][picked] = 0, False
        arrays["position"][picked] = schema.position_tokens.mask


def _ask(arrays: Arrays, wants: Any, wants_rating: Any, item: Any, rating: Any) -> None:
    arrays["weight_item"][:], arrays["weight_rating"][:] = wants, wants_rating
    arrays["target_item"][:] = np.where(wants, item, 0)
    arrays["target_rating"][:] = np.where(wants_rating, rating, 0)
