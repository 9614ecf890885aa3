"""Assigns numbers to item ids inside one split, and to user ids inside one partition."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamfeat.events.batches import EventBatch
from streamfeat.kernels.hash_table import Table, code_keys, rebuild_slots
from streamfeat.store.array_files import text_arrays

_FIRST_SLOTS = 1 << 12
_TEXT_TAG = 1 << 16  # marks text ids, which are coded by their number in a table of texts


class IntCoder:
    """Dense numbers, in order of first appearance, for (int64 key, int32 tag) pairs."""

    def __init__(self) -> None:
        self.num_unique = 0
        self._table = _empty_table(_FIRST_SLOTS)

    def _grow(self) -> None:
        table = _empty_table(2 * len(self._table.slots))
        table.keys[: self.num_unique] = self.keys
        table.tags[: self.num_unique] = self.tags
        rebuild_slots(table, self.num_unique)
        self._table = table

    def code(self, keys: NDArray[np.int64], tags: NDArray[np.int32]) -> NDArray[np.int32]:
        """(n,) int32 numbers of the pairs."""
        out = np.empty(len(keys), np.int32)
        done = 0
        while done < len(keys):
            result = code_keys(keys, tags, self._table, self.num_unique, done, out)
            self.num_unique, done = result >> 32, result & 0xFFFFFFFF
            if done < len(keys):
                self._grow()
        return out

    @property
    def keys(self) -> NDArray[np.int64]:
        return self._table.keys[: self.num_unique]

    @property
    def tags(self) -> NDArray[np.int32]:
        return self._table.tags[: self.num_unique]


def _empty_table(num_slots: int) -> Table:
    keys, tags = np.empty(num_slots // 2, np.int64), np.empty(num_slots // 2, np.int32)
    return Table(keys, tags, np.full(num_slots, -1, np.int32))


class ItemCoder:
    """The item table of one split: numbers for (medium, raw id), and titles."""

    def __init__(self) -> None:
        self.media: list[str] = []
        self.media_seen: set[str] = set()
        self._pairs = IntCoder()
        self._texts: dict[str, int] = {}
        self._titles: dict[int, str] = {}

    def code(self, batch: EventBatch, keep: NDArray[np.bool_]) -> NDArray[np.int32]:
        """(n,) int32 local item numbers of a batch. Rows that are not kept get an arbitrary number and no place in the
        table."""
        self.media_seen.update(batch.media)
        keys = batch.item.number.copy()
        tags = self._medium_codes(batch)[batch.medium] if len(batch.media) else np.zeros(len(keys), np.int32)
        if batch.item.text is not None:
            encoded = batch.item.text.dictionary_encode()
            known = ~np.asarray(batch.item.text.is_null())
            numbers = [self._texts.setdefault(text, len(self._texts)) for text in encoded.dictionary.to_pylist()]
            codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
            keys[known] = np.array(numbers, np.int64)[codes[known]]
            tags = np.where(known, tags + _TEXT_TAG, tags)
        out = np.zeros(len(keys), np.int32)
        out[keep] = self._pairs.code(np.ascontiguousarray(keys[keep]), tags[keep].astype(np.int32))
        if batch.title is not None:
            kept = np.flatnonzero(keep)
            present, first = np.unique(out[kept], return_index=True)
            titles = batch.title.take(pa.array(kept[first])).to_pylist()
            for number, title in zip(present.tolist(), titles, strict=True):
                if title:
                    self._titles.setdefault(number, title)
        return out

    def _medium_codes(self, batch: EventBatch) -> NDArray[np.int32]:
        for medium in batch.media:
            if medium not in self.media:
                self.media.append(medium)
        return np.array([self.media.index(medium) for medium in batch.media], np.int32)

    def tables(self) -> dict[str, NDArray[Any]]:
        """The table as arrays: medium codes into `media`, raw ids and titles ("": none) as texts."""
        is_text = self._pairs.tags >= _TEXT_TAG
        texts = list(self._texts)
        raw = pa.array(self._pairs.keys).cast(pa.string())
        if is_text.any():
            values = raw.to_pylist()
            for number in np.flatnonzero(is_text).tolist():
                values[number] = texts[self._pairs.keys[number]]
            raw = pa.array(values, pa.string())
        titles = pa.array([self._titles.get(n, "") for n in range(self._pairs.num_unique)], pa.string())
        return {
            "medium": (self._pairs.tags % _TEXT_TAG).astype(np.int32),
            **text_arrays("raw_id", raw),
            **text_arrays("title", titles),
        }
