"""Turns stored windows into the arrays of a batch: defines each array and calls the kernels that fill it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamfeat.config import StreamConfig
from streamfeat.kernels import disturb, draws, gather, objectives
from streamfeat.kernels.disturb import Disturbance
from streamfeat.kernels.objectives import Asked, Chance, Shown
from streamfeat.schema import FloatCode
from streamfeat.store.manifest import Manifest

Arrays = dict[str, NDArray[Any]]
Allocate = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]

# Every array of a batch, (windows, tokens). An unknown value is 0. Special tokens are those of the schema.
TOKEN_ARRAYS: dict[str, type[np.generic]] = {
    "item": np.int32,  # dense id over all media; may be masked
    "user": np.int32,
    "position": np.int32,
    "medium": np.int32,  # not masked, even if the item is
    "status": np.int32,
    "segment": np.int32,  # number of the history in the window, from 0; -1 for PAD
    "time": np.int64,  # the event's own time, seconds since time_origin
    "time_known": np.bool_,
    "told_time": np.int64,  # causal: the time of the segment's next event, which the model gets as input
    "told_time_known": np.bool_,
    "rating": np.float32,
    "rating_known": np.bool_,
    "completion": np.float32,
    "completion_known": np.bool_,
    "target_item": np.int32,  # the item of the item target or of the rating target; 0 without a target
    "target_rating": np.float32,
    "weight_item": np.float32,
    "weight_rating": np.float32,
}
WINDOW_ARRAYS: dict[str, type[np.generic]] = {
    "window": np.int64,  # (windows,): number of the window in its packing; -1: empty
    "slot": np.int64,  # (windows,): its place in the global batch
}

DISJOINT_SHARE = 0.1  # share of item targets, then share of the rating targets that remain
SEED_SHARE = 0.15  # share of tokens with a target
LAST_RATING_SHARE = 0.5  # `disjoint`, last targets only: share of rated tokens whose target is the rating, not the item
# The policy `seed` changes item, rating, time and position. For each: the purposes of its draws, and its cuts in
# training and validation. A draw below the first cut masks, below the second keeps, otherwise replaces.
DISTURBED = (
    (draws.MASK_ITEM, draws.RANDOM_ITEM),
    (draws.MASK_RATING, draws.RANDOM_RATING),
    (draws.MASK_TIME, draws.RANDOM_TIME),
    (draws.MASK_POSITION, draws.RANDOM_POSITION),
)
CUTS = {
    "training": ((0.8, 0.9), (0.8, 0.9), (0.45, 0.9), (0.45, 0.9)),
    "validation": ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 1.0)),  # all but the position are masked
}
ALWAYS = 1.0  # a share


@dataclass(frozen=True)
class BatchBuffers:
    """Reusable memory of one batch."""

    arrays: Arrays  # all arrays of the batch
    shown: Shown  # the same memory, grouped for kernels
    asked: Asked
    eligible: NDArray[np.bool_]  # scratch: tokens that may become targets
    picked: NDArray[np.bool_]  # scratch: tokens that `seed` picked, or that in `disjoint` may get a rating target only


def allocate_buffers(num_windows: int, window_len: int, allocate: Allocate = np.empty) -> BatchBuffers:
    """Uninitialised memory of a batch. `allocate` (shape, dtype) creates its arrays."""
    shape = (num_windows, window_len)
    arrays = {name: allocate(shape, np.dtype(dtype)) for name, dtype in TOKEN_ARRAYS.items()}
    arrays |= {name: allocate(shape[:1], np.dtype(dtype)) for name, dtype in WINDOW_ARRAYS.items()}
    shown, asked = Shown(*(arrays[n] for n in Shown._fields)), Asked(*(arrays[n] for n in Asked._fields))
    return BatchBuffers(arrays, shown, asked, np.empty(shape, np.bool_), np.empty(shape, np.bool_))


class Featurizer:
    """Fills batches for one objective, split and run seed. It holds only constants, so threads may share it."""

    def __init__(self, manifest: Manifest, config: StreamConfig) -> None:
        self._schema = manifest.data_schema
        self._config = config
        self._last_only = config.split == "validation" and manifest.validation_targets == "last"
        self._times = (manifest.time_min, manifest.time_max)
        self._pads = {name: int(self._schema.field(name).pad) for name in ("item", "user", "position", "status")}
        self._medium_offsets = np.array(self._schema.medium_offsets, np.int32)

    def fill(
        self,
        stored: Mapping[str, NDArray[Any]],
        rows: NDArray[np.int64],
        windows: NDArray[np.int64],
        slots: NDArray[np.int64],
        epoch: int,
        out: BatchBuffers,
    ) -> None:
        """Fills `out` with the batch of these windows, with the masks of `epoch`.

        stored: field → (any number of windows, window_len), stored dtype. Row i of the batch is window number
        windows[i] and comes from stored[field][rows[i]]; rows[i] = -1 gives an empty window.
        """
        out.arrays["window"][:] = windows
        out.arrays["slot"][:] = slots
        self._gather(stored, rows, out.arrays)
        objectives.mark_eligible(self._schema.num_items, out.shown, out.eligible)
        if self._last_only:
            objectives.keep_last(out.shown.segment, out.eligible)
        if self._config.objective == "causal":
            self._ask_next(windows, epoch, out)
        else:
            out.shown.told_time.fill(0)
            out.shown.told_time_known.fill(False)
            mask = self._mask_disjoint if self._config.mask_policy == "disjoint" else self._mask_seed
            mask(windows, epoch, out)
        if self._config.split == "validation":
            counts = np.empty(len(self._schema.media), np.int64)
            shift = int(self._config.objective == "causal")
            for weight in (out.asked.weight_item, out.asked.weight_rating):
                objectives.share_weights(out.shown.medium, out.shown.segment, shift, counts, weight)

    def _gather(self, stored: Mapping[str, NDArray[Any]], rows: NDArray[np.int64], out: Arrays) -> None:
        for name, pad in self._pads.items():
            gather.gather_integers(stored[name], rows, pad, out[name])
        gather.gather_times(stored["time"], rows, out["time"])
        _gather_floats(self._schema.rating, stored["rating"], rows, out["rating"], out["rating_known"])
        _gather_floats(self._schema.completion, stored["completion"], rows, out["completion"], out["completion_known"])
        gather.mark_tokens(
            out["item"], out["user"], self._medium_offsets, out["medium"], out["segment"], out["time_known"]
        )

    def _state(self, purpose: int, epoch: int) -> np.uint64:
        """The state from which the draws of a purpose start. Kernels fold in window and token."""
        return draws.draw_state(self._config.seed, purpose, draws.SPLIT_COUNTERS[self._config.split], epoch)

    def _chance(self, purpose: int, epoch: int, share: float) -> Chance:
        return Chance(self._state(purpose, epoch), share)

    def _ask_next(self, windows: NDArray[np.int64], epoch: int, out: BatchBuffers) -> None:
        share = self._config.hidden_times if self._config.split == "training" else 0.0
        hides = self._chance(draws.HIDE_TOLD_TIMES, epoch, share)
        objectives.ask_next(out.eligible, windows, hides, out.shown, out.asked)

    def _mask_disjoint(self, windows: NDArray[np.int64], epoch: int, out: BatchBuffers) -> None:
        for_item = for_rating = out.eligible
        if self._last_only:
            for_rating = out.picked
            rates = self._chance(draws.ASK_LAST_RATING, epoch, LAST_RATING_SHARE)
            objectives.move_ratings(rates, out.shown, for_item, for_rating)
        share = ALWAYS if self._last_only else DISJOINT_SHARE
        asks_item, asks_rating = (self._chance(purpose, epoch, share) for purpose in (draws.PICK, draws.PICK_RATING))
        masks = (self._schema.item_tokens.mask, self._schema.status_tokens.mask)
        objectives.mask_disjoint(for_item, for_rating, windows, asks_item, asks_rating, *masks, out.shown, out.asked)

    def _mask_seed(self, windows: NDArray[np.int64], epoch: int, out: BatchBuffers) -> None:
        schema, shown, picked = self._schema, out.shown, out.picked
        picks = self._chance(draws.PICK, epoch, ALWAYS if self._last_only else SEED_SHARE)
        objectives.pick_seed(out.eligible, windows, picks, schema.status_tokens.mask, shown, out.asked, picked)
        item, rating, time, position = (
            Disturbance(self._state(purpose, epoch), self._state(random, epoch), *cuts)
            for (purpose, random), cuts in zip(DISTURBED, CUTS[self._config.split], strict=True)
        )
        disturb.disturb_items(
            picked, windows, item, schema.item_tokens.mask, self._medium_offsets, shown.medium, shown.item
        )
        disturb.disturb_ratings(picked, windows, rating, schema.rating_max + 1, shown.rating, shown.rating_known)
        disturb.disturb_times(picked, windows, time, *self._times, shown.time, shown.time_known)
        disturb.disturb_positions(
            picked, windows, position, schema.position_tokens.mask, schema.window_len, shown.position
        )


def _gather_floats(
    code: FloatCode,
    stored: NDArray[Any],
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
    out_known: NDArray[np.bool_],
) -> None:
    if code.dtype == "uint8":
        gather.gather_coded_floats(stored, rows, code.decode_table(), out, out_known)
    else:
        gather.gather_floats(stored, rows, out, out_known)
