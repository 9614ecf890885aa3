"""Converts batches to the plain arrays of the original project: their names, dtypes and special values.

In an integer field of n values CLS, PAD, MASK and EMPTY are n to n + 3. In a float field they are base + 1 to base + 4.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import Objective
from streamfeat.errors import ConfigError
from streamfeat.schema import STATUSES, Schema, SpecialTokens, special_tokens
from streamfeat.store.layout import ArraySpec
from streamfeat.store.manifest import Manifest, SplitCounts

CAUSAL = "causal"  # the only array that is not a token field: (1,) bool
TASKS = ("item", "rating")
UNIT_BASE = 1.0  # base of timestamp and completion
_CLS, _PAD, _MASK, _EMPTY = 1, 2, 3, 4  # what is added to a float field's base


def rating_base(schema: Schema) -> float:
    """The base of the rating field. It is larger than every rating and stands for an event without a rating."""
    return schema.rating_max + 1


def causal_spec(schema: Schema) -> ArraySpec:
    """The array that says which objective the other arrays belong to."""
    return ArraySpec(
        name=CAUSAL,
        num_rows=1,
        row_shape=(),
        dtype=np.dtype(np.bool_),
        chunk_rows=1,
        shard_rows=1,
        fill_value=False,
        dimension_names=("flag",),
        compression="none",
        attributes={"long_name": "whether the objective is causal, else masked"},
    )


def token_specs(manifest: Manifest, counts: SplitCounts) -> list[ArraySpec]:
    """All other arrays, (windows, window_len), with the dataset's own chunks and shards.

    Raises ConfigError if a medium has the name of another array.
    """
    schema = manifest.data_schema
    described: list[tuple[str, type[np.generic], dict[str, Any]]] = []
    for medium, num_items in zip(schema.media, _sizes(schema), strict=True):
        what = f"item of {medium}, from 0; EMPTY where the event is of another medium"
        described.append((medium, np.int32, _integer(special_tokens(num_items), what)))
    status = "; ".join(f"{code} {name}" for code, name in enumerate(STATUSES))
    described += [
        ("rating", np.float32, _float(rating_base(schema), "rating") | {"unrated_value": rating_base(schema)}),
        ("timestamp", np.float32, _float(UNIT_BASE, "time, 0 and 1 the first and last of training; causal: as told")),
        ("status", np.int32, _integer(schema.status_tokens, status)),
        ("completion", np.float32, _float(UNIT_BASE, "share of the item that was finished")),
        ("user", np.int32, _integer(schema.user_tokens, "dense user id; a CLS token has its user's")),
        ("position", np.int32, _integer(schema.position_tokens, "place in the history, modulo window_len")),
    ]
    for medium in schema.media:
        for task in TASKS:
            about = f"{task} of {medium}; 0 where there is no target"
            described += [
                (f"positions_{medium}_{task}", np.int32, {"long_name": f"item that is asked about: {about}"}),
                (f"labels_{medium}_{task}", np.float32, {"long_name": f"1, or the rating: {about}"}),
                (f"weights_{medium}_{task}", np.float32, {"long_name": f"weight of the target: {about}"}),
            ]
    names = [CAUSAL, *(name for name, _, _ in described)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"medium {twice[0]!r} has the name of another array of the features; build the dataset with another name "
            "of that medium"
        )
    return [
        ArraySpec(
            name=name,
            num_rows=counts.windows,
            row_shape=(schema.window_len,),
            dtype=np.dtype(dtype),
            chunk_rows=counts.chunk_windows,
            shard_rows=counts.shard_windows,
            fill_value=attributes.get("pad_value", 0),
            dimension_names=("window", "token"),
            compression=manifest.config.compression,
            attributes=attributes,
        )
        for name, dtype, attributes in described
    ]


def features_of(
    batch: Mapping[str, NDArray[Any]], rating_masked: NDArray[np.bool_], manifest: Manifest, objective: Objective
) -> dict[str, NDArray[Any]]:
    """The arrays of `token_specs` for a batch of `stream.featurize`, all (windows, window_len).

    rating_masked: (windows, window_len), which ratings are masked. Other unknown ratings are missing in the data.
    """
    schema = manifest.data_schema
    medium, masked = batch["medium"], batch["status"] == schema.status_tokens.mask
    is_cls, is_pad = medium == len(schema.media), medium == len(schema.media) + 1
    special = np.select([is_cls, is_pad], [_CLS, _PAD], 0)
    rating = np.where(rating_masked, _MASK, special)
    completion = np.where(masked, _MASK, special)
    return {
        **_items(batch["item"], medium, schema),
        "rating": _filled(batch["rating"], batch["rating_known"], rating_base(schema), rating),
        "timestamp": _timestamps(batch, special, manifest, objective),
        "completion": _filled(batch["completion"], batch["completion_known"], UNIT_BASE, completion),
        **{name: batch[name] for name in ("status", "user", "position")},
        **_targets(batch, schema),
    }


def _items(item: NDArray[Any], medium: NDArray[Any], schema: Schema) -> dict[str, NDArray[Any]]:
    """One field for each medium: its own items; CLS and PAD in all fields; EMPTY for events of other media."""
    fields = {}
    num_media = len(schema.media)
    for m, (name, num_items) in enumerate(zip(schema.media, _sizes(schema), strict=True)):
        tokens = special_tokens(num_items)
        own = np.where(item == schema.item_tokens.mask, tokens.mask, item - schema.medium_offsets[m])
        other = np.where(medium < num_media, tokens.empty, tokens.cls + medium - num_media)
        fields[name] = np.where(medium == m, own, other).astype(np.int32)
    return fields


def _timestamps(
    batch: Mapping[str, NDArray[Any]], special: NDArray[Any], manifest: Manifest, objective: Objective
) -> NDArray[np.float32]:
    """Masked objective: a token's own time. Causal objective: its told time, EMPTY (also for CLS) if there is none."""
    span = manifest.time_max - manifest.time_min
    if objective == "causal":
        time, known = batch["told_time"], batch["told_time_known"]
        special = np.where(special == _PAD, _PAD, _EMPTY)
    else:
        time, known = batch["time"], batch["time_known"]
        special = np.where(special == 0, _MASK, special)
    scaled = (time - manifest.time_min) / span if span else np.zeros(time.shape)
    return _filled(scaled, known, UNIT_BASE, special)


def _filled(values: NDArray[Any], known: NDArray[np.bool_], base: float, special: NDArray[Any]) -> NDArray[np.float32]:
    return np.where(known, values, base + special).astype(np.float32)


def _targets(batch: Mapping[str, NDArray[Any]], schema: Schema) -> dict[str, NDArray[Any]]:
    asked = batch["target_item"]
    medium = np.searchsorted(schema.medium_offsets[1:], asked, side="right")
    arrays = {}
    for m, name in enumerate(schema.media):
        for task in TASKS:
            weight = batch[f"weight_{task}"]
            mine = (medium == m) & (weight > 0)
            label = np.float32(1) if task == "item" else batch["target_rating"]
            arrays[f"positions_{name}_{task}"] = np.where(mine, asked - schema.medium_offsets[m], 0).astype(np.int32)
            arrays[f"labels_{name}_{task}"] = np.where(mine, label, 0).astype(np.float32)
            arrays[f"weights_{name}_{task}"] = np.where(mine, weight, 0).astype(np.float32)
    return arrays


def _sizes(schema: Schema) -> list[int]:
    """Items of each medium."""
    return np.diff(schema.medium_offsets).tolist()


def _integer(tokens: SpecialTokens, long_name: str) -> dict[str, Any]:
    return {"long_name": long_name, **{f"{name}_value": value for name, value in tokens._asdict().items()}}


def _float(base: float, long_name: str) -> dict[str, Any]:
    values = {"cls": base + _CLS, "pad": base + _PAD, "mask": base + _MASK, "empty": base + _EMPTY}
    return {"long_name": long_name, **{f"{name}_value": value for name, value in values.items()}}
