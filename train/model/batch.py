"""Turns the stream's arrays into the model's tensors.

Everything that depends on values of the data is computed here on the host, so that the device never waits for it.

Axes: B windows of a micro-batch, T tokens of a window, N targets of a task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfeat.config import MaskPolicy, SplitName
from streamfeat.kernels.residuals import RatingTable
from streamfeat.schema import Schema
from streamfeat.store.manifest import Manifest
from train.config import TrainConfig
from train.model.cpu_attention import SegmentLayout, lay_out_segments, segment_starts
from train.model.dropout import dropout_keys
from train.model.past_ratings import Evidence
from train.model.popularity import PopularityFeatures
from train.model.targets import Arrays, Targets, gather_targets
from train.terms.ratings import empty_table
from train.terms.terms import Terms

# Buckets of gaps: 0 for equal times, 1 + floor(log2 seconds), the last for a segment's first event or an unknown time.
UNKNOWN_GAP = 41  # 2^40 seconds are 35,000 years
NUM_GAPS = UNKNOWN_GAP + 1

# If a smaller share of events repeats an item, users almost never return to an item: the softmax leaves out seen items.
_FEW_REPEATS = 0.01

# The approximate share of events that a mask policy picks for a task. It affects only the sizes of buffers.
_PICKED: dict[MaskPolicy, float] = {"disjoint": 0.10, "seed": 0.15}

DataT = TypeVar("DataT")


@dataclass(frozen=True)
class BatchFacts:
    """The facts of a dataset and a run that decide how arrays become tensors."""

    schema: Schema
    time_min: int  # seconds since time_origin, over training events
    time_max: int
    rating_mean: float  # of training ratings, over all media
    rating_std: float
    causal: bool
    relative: bool  # True: order and time enter by gaps and attention bias; False: by `position`
    exclude_seen: bool
    seed: int  # of the run; decides dropout
    ratings: RatingTable  # of the tables of training events; without them, empty
    validates_last: bool  # in validation, all events of a segment but the last are training events
    target_shares: Mapping[str, float]  # task → approximate share of training tokens that have its target
    terms: Terms | None = None  # the tables of training events; None: of a run of an earlier version, without them
    popularity: PopularityFeatures | None = None  # made of the tables, on the device; see `on_device`

    @classmethod
    def of(cls, manifest: Manifest, config: TrainConfig, terms: Terms | None = None) -> "BatchFacts":
        """The facts for training with `config` on the dataset of `manifest`, without what lies on the device."""
        mean, std = _pooled_ratings(manifest)
        return cls(
            schema=manifest.data_schema,
            time_min=manifest.time_min,
            time_max=manifest.time_max,
            rating_mean=mean,
            rating_std=std,
            causal=config.objective == "causal",
            # The `seed` policy masks time and position: bias and gaps would reveal them.
            relative=config.objective == "causal" or config.mask_policy != "seed",
            exclude_seen=manifest.repeat_share < _FEW_REPEATS,
            seed=config.seed,
            ratings=terms.ratings if terms else empty_table(manifest),
            validates_last=manifest.validation_targets == "last",
            target_shares=_target_shares(manifest, config),
            terms=terms,
        )

    def on_device(self, device: torch.device) -> "BatchFacts":
        """The same with the features of popularity on `device`, which `to_batch` needs."""
        if self.terms is None or not self.knows_popularity:
            return self
        return replace(self, popularity=PopularityFeatures.of(self.terms.popularity, self.schema, device))

    @property
    def knows_popularity(self) -> bool:
        """Whether the model knows what is popular at a target's time. The `seed` policy masks and draws times."""
        return self.relative and self.terms is not None

    @property
    def num_values(self) -> int:
        """How many numbers a token has: rating, completion, time and, with a causal objective, the told time."""
        return 4 if self.causal else 3


@dataclass(frozen=True)
class Batch:
    """A micro-batch on its device. On a CPU it shares memory with the stream's arrays, and is valid while they are."""

    item_BT: Tensor  # int32; here and in the next three, special tokens are numbered after the ordinary values
    medium_BT: Tensor
    status_BT: Tensor
    position_BT: Tensor
    segment_BT: Tensor  # int32, -1 on PAD
    value_BTC: Tensor  # float32: first the values, 0 if unknown; then a flag for each, 1 if known
    gap_BT: Tensor  # int32: bucket of the time since the previous event
    told_gap_BT: Tensor  # int32: bucket of the time until the told time; UNKNOWN_GAP if that is hidden
    time_BT: Tensor  # int64: the event's own time, seconds since time_origin
    time_known_BT: Tensor  # bool
    residual_BT: Tensor  # float32: of the ratings in view; 0 without one
    targets: dict[str, Targets]  # by task
    features: tuple[Tensor, ...]  # of popularity, by medium: (F, R, V); empty without that term
    layout: SegmentLayout | None  # None: attention runs on the CUDA kernels
    dropout_keys: NDArray[np.uint64] | None  # (B,), on the host; None: torch's own dropout


def to_batch(
    arrays: Arrays,
    rows: slice,
    facts: BatchFacts,
    device: torch.device,
    *,
    step: int = 0,
    split: SplitName = "training",
    for_gpu: bool | None = None,
) -> Batch:
    """The windows `rows` of a stream's batch as tensors on `device`, for optimizer step `step`.

    `for_gpu` selects the CUDA kernels, torch's own dropout and, in training, targets padded to a fixed capacity.
    Its default is True on CUDA, False elsewhere.
    """
    arrays = {name: array[rows] for name, array in arrays.items()}
    for_gpu = device.type == "cuda" if for_gpu is None else for_gpu
    time, known = arrays["time"], arrays["time_known"]
    told, told_known = arrays["told_time"], arrays["told_time_known"]
    evidence = evidence_of(arrays, facts, split)
    layout = None
    if not for_gpu:
        layout = lay_out_segments(
            arrays["segment"], time, known, causal=facts.causal, relative=facts.relative, device=device
        )
    batch = Batch(
        **{f"{name}_BT": _tensor(arrays[name]) for name in ("item", "medium", "status", "position", "segment")},
        value_BTC=_tensor(_values(arrays, facts)),
        gap_BT=_tensor(_gaps_before(arrays["segment"], time, known)),
        told_gap_BT=_tensor(gap_buckets(told - time, known & told_known)),
        time_BT=_tensor(time),
        time_known_BT=_tensor(known),
        residual_BT=_tensor(evidence.residual_BT),
        targets=gather_targets(
            arrays,
            facts.schema,
            evidence,
            causal=facts.causal,
            exclude_seen=facts.exclude_seen,
            expected=facts.target_shares if for_gpu and split == "training" else None,
            popularity=facts.popularity,
        ),
        features=(),
        layout=None,
        dropout_keys=None if for_gpu else dropout_keys(facts.seed, step, arrays["slot"].astype(np.int64)),
    )
    features = facts.popularity.by_medium if facts.popularity else ()
    return replace(moved(batch, device), features=features, layout=layout)


def evidence_of(arrays: Arrays, facts: BatchFacts, split: SplitName) -> Evidence:
    """What the ratings in the arrays of a batch say, each without its own part in the table of training ratings.

    Arrays of questions say themselves which ratings are in the table.
    """
    segment = arrays["segment"]
    in_table = np.full(segment.shape, split == "training")
    if "in_table" in arrays:
        in_table = arrays["in_table"]
    elif split == "validation" and facts.validates_last:
        in_table[:, :-1] = segment[:, :-1] == segment[:, 1:]
    if facts.terms is None:
        in_table = np.zeros_like(in_table)
    return Evidence.of(arrays, facts.ratings, in_table, facts.schema.status_tokens.mask, causal=facts.causal)


def gap_buckets(seconds: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The bucket of each gap. A negative gap counts as 0 seconds."""
    # frexp's exponent of s >= 1 is 1 + floor(log2 s), exact below 2^53.
    bucket = np.frexp(np.maximum(seconds, 0).astype(np.float64))[1]
    return np.where(known, np.minimum(bucket, UNKNOWN_GAP - 1), UNKNOWN_GAP).astype(np.int32)


def _gaps_before(segment: NDArray[np.int32], time: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int32]:
    seconds, both = np.zeros_like(time), np.zeros_like(known)
    seconds[:, 1:] = time[:, 1:] - time[:, :-1]
    both[:, 1:] = known[:, 1:] & known[:, :-1]
    return gap_buckets(seconds, both & ~segment_starts(segment).reshape(segment.shape))


def _values(arrays: Arrays, facts: BatchFacts) -> NDArray[np.float32]:
    """(B, T, 2 * num_values): standardised ratings, completion, times as shares of the training range; then flags."""
    span = facts.time_max - facts.time_min
    columns: list[tuple[NDArray[Any], NDArray[np.bool_]]] = [
        ((arrays["rating"] - facts.rating_mean) / facts.rating_std, arrays["rating_known"]),
        (arrays["completion"], arrays["completion_known"]),
    ]
    for name in ("time", "told_time")[: facts.num_values - 2]:
        share = (arrays[name] - facts.time_min) / span if span else np.zeros(arrays[name].shape)
        columns.append((share, arrays[f"{name}_known"]))
    flags = [known.astype(np.float32) for _, known in columns]
    values = [np.where(known, value, 0).astype(np.float32) for value, known in columns]
    return np.stack(values + flags, axis=-1)


def _pooled_ratings(manifest: Manifest) -> tuple[float, float]:
    """Mean and standard deviation of training ratings over all media; (0, 1) without ratings."""
    counts = np.array([scale.ratings for scale in manifest.scales], np.float64)
    if not counts.sum():
        return 0.0, 1.0
    means = np.array([scale.rating_mean for scale in manifest.scales])
    variances = np.array([scale.rating_variance for scale in manifest.scales])
    mean = float(counts @ means / counts.sum())
    variance = float(counts @ (variances + (means - mean) ** 2) / counts.sum())
    return mean, variance**0.5 or 1.0


def _target_shares(manifest: Manifest, config: TrainConfig) -> dict[str, float]:
    picked = 1.0 if config.objective == "causal" else _PICKED[config.mask_policy]
    tokens = max(1, manifest.splits["training"].tokens)
    shares = {}
    for scale in manifest.scales:
        shares[f"{scale.medium}_watch"] = picked * scale.targets / tokens
        shares[f"{scale.medium}_rating"] = picked * scale.ratings / tokens
    return shares


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def moved(value: DataT, device: torch.device) -> DataT:
    """`value` with every tensor in it on `device`.

    A copy to CUDA goes through pinned memory of torch, which torch keeps until the copy is done. The stream's own
    buffers may be overwritten before the device has read them.
    """
    if isinstance(value, Tensor):
        pinned = value.pin_memory() if device.type == "cuda" else value
        return pinned.to(device, non_blocking=True)  # type: ignore[return-value]
    if isinstance(value, dict):
        return {key: moved(part, device) for key, part in value.items()}  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: moved(getattr(value, field.name), device) for field in fields(value)}
        return replace(value, **parts)
    return value
