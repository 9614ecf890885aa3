"""Stored windows to the arrays of a batch: what each array is, and which kernels fill it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamfeat.config import StreamConfig
from streamfeat.kernels import draws, gather, last_targets, objectives
from streamfeat.schema import FloatCode
from streamfeat.store.manifest import Manifest

Arrays = dict[str, NDArray[Any]]
Allocate = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]

# Every array of a batch, (windows, tokens). An unknown value is 0; special tokens are as in the schema.
TOKEN_ARRAYS: dict[str, type[np.generic]] = {
    "item": np.int32,  # dense id over all media, as the model sees it
    "user": np.int32,
    "position": np.int32,
    "medium": np.int32,  # stays in view where the item is masked
    "status": np.int32,
    "segment": np.int32,  # which history of the window, from 0; -1 on PAD
    "time": np.int64,  # seconds since time_origin, the token's own
    "time_known": np.bool_,
    "told_time": np.int64,  # causal: the time of the next event of the segment
    "told_time_known": np.bool_,
    "rating": np.float32,
    "rating_known": np.bool_,
    "completion": np.float32,
    "completion_known": np.bool_,
    "target_item": np.int32,  # the item that the target is about, a rating's too; 0 where there is no target
    "target_rating": np.float32,
    "weight_item": np.float32,
    "weight_rating": np.float32,
}
WINDOW_ARRAYS: dict[str, type[np.generic]] = {
    "window": np.int64,  # (windows,): number of the window in its packing, -1 where empty
    "slot": np.int64,  # (windows,): its place in the global batch
}

HIDE_TOLD_TIMES_SHARE = 0.1  # causal, training: segments whose told times are all hidden
DISJOINT_SHARE = 0.1  # of the item targets, then of the rating targets that remain
SEED_SHARE = 0.15  # of the tokens with a target
LAST_RATING_SHARE = 0.5  # `disjoint`, last targets only: of the rated ones, asked for the rating instead of the item
# Policy `seed`: a draw below the first number masks, below the second keeps, above replaces.
VALUE_CUTS = (0.8, 0.9)  # item and rating
PLACE_CUTS = (0.45, 0.9)  # time and position
ALWAYS_MASK = (1.0, 1.0)  # validation: item, rating and time
ALWAYS_KEEP = (0.0, 1.0)  # validation: position


@dataclass(frozen=True)
class BatchBuffers:
    """Reusable memory of one batch."""

    arrays: Arrays  # as delivered
    picked: NDArray[np.bool_]  # scratch: which tokens the `seed` policy masks


def allocate_buffers(num_windows: int, window_len: int, allocate: Allocate = np.empty) -> BatchBuffers:
    """Memory of a batch, uninitialised, its arrays from `allocate` (shape, dtype)."""
    shape = (num_windows, window_len)
    arrays = {name: allocate(shape, np.dtype(dtype)) for name, dtype in TOKEN_ARRAYS.items()}
    arrays |= {name: allocate(shape[:1], np.dtype(dtype)) for name, dtype in WINDOW_ARRAYS.items()}
    return BatchBuffers(arrays, np.empty(shape, np.bool_))


class Featurizer:
    """Fills batches for one objective, split and run seed. Holds constants only, so threads may share it."""

    def __init__(self, manifest: Manifest, config: StreamConfig) -> None:
        self._schema = manifest.data_schema
        self._config = config
        self._last_only = config.split == "validation" and manifest.validation_targets == "last"
        self._time_range = (manifest.time_min, manifest.time_max)
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
        """Make `out` the batch of these windows, with the masks of `epoch`.

        stored: field → (any number of windows, window_len) as on disk; row i of the batch is window number
        windows[i], found in stored[field][rows[i]]; rows[i] is -1 where it is empty.
        """
        out.arrays["window"][:] = windows
        out.arrays["slot"][:] = slots
        self._gather(stored, rows, out.arrays)
        if self._config.objective == "causal":
            self._ask_next(windows, epoch, out.arrays)
        else:
            out.arrays["told_time"].fill(0)
            out.arrays["told_time_known"].fill(False)
            mask = self._mask_disjoint if self._config.mask_policy == "disjoint" else self._mask_seed
            mask(windows, epoch, out)
        if self._config.split == "validation":
            counts = np.empty(len(self._schema.media), np.int64)
            shift = int(self._config.objective == "causal")
            for weight in ("weight_item", "weight_rating"):
                objectives.share_weights(out.arrays["medium"], out.arrays["segment"], shift, counts, out.arrays[weight])

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
        """What the draws of a purpose start from; window and token are folded in by the kernels."""
        return draws.draw_state(self._config.seed, purpose, draws.SPLIT_COUNTERS[self._config.split], epoch)

    def _ask_next(self, windows: NDArray[np.int64], epoch: int, out: Arrays) -> None:
        hide_share = HIDE_TOLD_TIMES_SHARE if self._config.split == "training" else 0.0
        objectives.ask_next(
            windows, self._schema.num_items, self._state(draws.HIDE_TOLD_TIMES, epoch), hide_share,
            out["item"], out["status"], out["segment"], out["time"], out["time_known"],
            out["rating"], out["rating_known"], out["told_time"], out["told_time_known"],
            out["target_item"], out["target_rating"], out["weight_item"], out["weight_rating"],
        )  # fmt: skip
        if self._last_only:
            last_targets.keep_last(
                out["segment"], out["target_item"], out["target_rating"], out["weight_item"], out["weight_rating"]
            )

    def _mask_disjoint(self, windows: NDArray[np.int64], epoch: int, buffers: BatchBuffers) -> None:
        out = buffers.arrays
        if self._last_only:
            last_targets.mask_last_disjoint(
                self._schema.num_items, self._schema.item_tokens.mask, self._schema.status_tokens.mask,
                self._state(draws.ASK_LAST_RATING, epoch), LAST_RATING_SHARE, out["segment"], out["user"],
                out["item"], out["status"], out["rating"], out["rating_known"],
                out["completion"], out["completion_known"],
                out["target_item"], out["target_rating"], out["weight_item"], out["weight_rating"],
            )  # fmt: skip
            return
        objectives.mask_disjoint(
            windows, self._schema.num_items, self._schema.item_tokens.mask, self._schema.status_tokens.mask,
            self._state(draws.PICK, epoch), self._state(draws.PICK_RATING, epoch), DISJOINT_SHARE,
            out["item"], out["status"], out["rating"], out["rating_known"],
            out["completion"], out["completion_known"],
            out["target_item"], out["target_rating"], out["weight_item"], out["weight_rating"],
        )  # fmt: skip

    def _mask_seed(self, windows: NDArray[np.int64], epoch: int, buffers: BatchBuffers) -> None:
        out, picked, schema = buffers.arrays, buffers.picked, self._schema
        training = self._config.split == "training"
        fields_and_targets = (
            out["item"], out["rating"], out["rating_known"],
            out["status"], out["completion"], out["completion_known"], picked,
            out["target_item"], out["target_rating"], out["weight_item"], out["weight_rating"],
        )  # fmt: skip
        if self._last_only:
            last_targets.pick_last_seed(
                schema.num_items, schema.status_tokens.mask, out["segment"], *fields_and_targets
            )
        else:
            objectives.pick_seed(
                windows, schema.num_items, schema.status_tokens.mask, self._state(draws.PICK, epoch), SEED_SHARE,
                *fields_and_targets,
            )  # fmt: skip
        objectives.disturb_items(
            picked, windows, self._state(draws.MASK_ITEM, epoch), self._state(draws.RANDOM_ITEM, epoch),
            *(VALUE_CUTS if training else ALWAYS_MASK),
            schema.item_tokens.mask, self._medium_offsets, out["medium"], out["item"],
        )  # fmt: skip
        objectives.disturb_ratings(
            picked, windows, self._state(draws.MASK_RATING, epoch), self._state(draws.RANDOM_RATING, epoch),
            *(VALUE_CUTS if training else ALWAYS_MASK),
            schema.rating_max + 1, out["rating"], out["rating_known"],
        )  # fmt: skip
        objectives.disturb_times(
            picked, windows, self._state(draws.MASK_TIME, epoch), self._state(draws.RANDOM_TIME, epoch),
            *(PLACE_CUTS if training else ALWAYS_MASK), *self._time_range, out["time"], out["time_known"],
        )  # fmt: skip
        objectives.disturb_positions(
            picked, windows, self._state(draws.MASK_POSITION, epoch), self._state(draws.RANDOM_POSITION, epoch),
            *(PLACE_CUTS if training else ALWAYS_KEEP),
            schema.position_tokens.mask, schema.window_len, out["position"],
        )  # fmt: skip


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
