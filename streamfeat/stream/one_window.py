"""Shows one window as text, with raw ids, so that a user can check packing and masks."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import StreamConfig
from streamfeat.errors import ConfigError, DamagedError
from streamfeat.schema import STATUSES, SpecialTokens
from streamfeat.store.layout import WINDOWS
from streamfeat.store.manifest import Manifest, load_manifest
from streamfeat.store.reader import ArrayReader
from streamfeat.store.tables import ItemTable, read_items, read_user_ids
from streamfeat.stream.featurize import Featurizer, allocate_buffers

HIDDEN = "MASK"
NOTHING = ""


def look_at_window(path: str | Path, window: int, config: StreamConfig, *, epoch: int = 0) -> list[dict[str, str]]:
    """The tokens of a window as the model gets them with `config` in `epoch`: one dict of texts for each token.

    Raises ConfigError if the split has no such window.
    """
    manifest = load_manifest(path)
    num_windows = manifest.splits[config.split].windows
    if not 0 <= window < num_windows:
        raise ConfigError(f"--window {window}: the {config.split} split has windows 0 to {num_windows - 1}")
    arrays = _featurized(Path(path), manifest, window, config, epoch)
    texts = _Texts(manifest, read_items(path), read_user_ids(path))
    return [
        texts.token(t, {name: values[0, t] for name, values in arrays.items()})
        for t in range(manifest.data_schema.window_len)
    ]


def _featurized(
    root: Path, manifest: Manifest, window: int, config: StreamConfig, epoch: int
) -> dict[str, NDArray[Any]]:
    epoch = 0 if config.split == "validation" else epoch
    packing = manifest.packing_of(config.split, epoch)
    stored = {}
    for field in manifest.data_schema.token_fields():
        array = f"{WINDOWS}/{config.split}/{packing}/{field.name}"
        with ArrayReader(root, array, manifest.shard_checksums(array)) as reader:
            if reader.shape != (manifest.splits[config.split].windows, manifest.data_schema.window_len):
                raise DamagedError(
                    f"{reader.path}: its shape {reader.shape} is not that of the manifest; run `verify`, or build again"
                )
            stored[field.name] = reader.read_rows(window, window + 1)
    buffers = allocate_buffers(1, manifest.data_schema.window_len)
    one = np.zeros(1, np.int64)
    Featurizer(manifest, config).fill(stored, one, np.full(1, window), one, epoch, buffers)
    return {name: values for name, values in buffers.arrays.items() if values.ndim == 2}


class _Texts:
    """Turns the values of a token into texts."""

    def __init__(self, manifest: Manifest, items: ItemTable, users: list[str]) -> None:
        self._schema, self._items, self._users = manifest.data_schema, items, users

    def token(self, place: int, values: dict[str, Any]) -> dict[str, str]:
        """The row of one token: column → text."""
        schema = self._schema
        special = _special(int(values["item"]), schema.item_tokens)
        plain = special in (None, HIDDEN)
        row = {
            "token": str(place),
            "segment": str(values["segment"]) if values["segment"] >= 0 else NOTHING,
            "user": self._users[values["user"]] if values["user"] < schema.num_users else NOTHING,
            "position": _special(int(values["position"]), schema.position_tokens) or str(values["position"]),
            "time": self._time(values["time"], values["time_known"]) if plain else NOTHING,
            "medium": _special(int(values["medium"]), schema.medium_tokens) or schema.media[values["medium"]],
            "item": special or self._item(int(values["item"])),
            "rating": self._value(values, "rating"),
            "status": _special(int(values["status"]), schema.status_tokens) or STATUSES[values["status"]],
            "completion": self._value(values, "completion"),
        }
        told = self._time(values["told_time"], True) if values["told_time_known"] else NOTHING
        watched = self._item(int(values["target_item"])) if values["weight_item"] else NOTHING
        rated = f"{values['target_rating']:g}" if values["weight_rating"] else NOTHING
        of = f" of {self._item(int(values['target_item']))}" if values["weight_rating"] and not watched else NOTHING
        weights = [f"{values[name]:.3g}" for name in ("weight_item", "weight_rating") if values[name]]
        asked = {"target item": watched, "target rating": rated + of, "weight": " ".join(weights)}
        return row | {"told time": told} | asked

    def _value(self, values: dict[str, Any], name: str) -> str:
        """The text of a rating or completion. If the status of a token is masked, both are masked, too."""
        if values[f"{name}_known"]:
            return f"{values[name]:g}"
        return HIDDEN if values["status"] == self._schema.status_tokens.mask else NOTHING

    def _item(self, item: int) -> str:
        title = self._items.title[item]
        return self._items.raw_id[item] + (f" {title}" if title else "")

    def _time(self, seconds: int, known: bool) -> str:
        if not known:
            return HIDDEN
        moment = datetime.fromtimestamp(self._schema.time_origin + int(seconds), UTC)
        return moment.strftime("%Y-%m-%d %H:%M:%S")


def _special(value: int, tokens: SpecialTokens) -> str | None:
    """The name of a special token; None for an ordinary value."""
    return {number: name.upper() for name, number in tokens._asdict().items()}.get(value)
