"""Translates between the raw item ids of event files and the dense ids of a run."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from streamfeat.schema import Schema
from streamfeat.store.tables import ItemTable


class Catalogue:
    """Finds items by medium and raw id. The raw id must be exactly as in the event files."""

    def __init__(self, items: ItemTable, schema: Schema) -> None:
        self._items, self._schema = items, schema
        self._ids = {key: number for number, key in enumerate(zip(items.medium, items.raw_id, strict=True))}

    def dense(self, items: Iterable[tuple[str, str]]) -> NDArray[np.int64]:
        """(n,) dense ids of (medium, raw id); -1 for items that the run does not know."""
        return np.array([self._ids.get(item, -1) for item in items], np.int64)

    def chosen(self, items: Iterable[tuple[str, str]]) -> tuple[list[NDArray[np.int64]], list[str]]:
        """For each medium the listed items as ascending ids inside it; and the names of unknown items.

        An item without a medium (`""`) stands for the items of all media with this raw id.
        """
        found: set[int] = set()
        unknown = []
        for medium, raw_id in items:
            media = (medium,) if medium else self._schema.media
            known = {self._ids[name, raw_id] for name in media if (name, raw_id) in self._ids}
            found |= known
            if not known:
                unknown.append(self.name(medium, raw_id))
        dense = np.array(sorted(found), np.int64)
        offsets = self._schema.medium_offsets
        edges = np.searchsorted(dense, offsets).tolist()
        parts = [dense[first:last] - low for first, last, low in zip(edges, edges[1:], offsets, strict=False)]
        return parts, unknown

    def name(self, medium: str, raw_id: str) -> str:
        """The item's name in messages: with its medium if the run has several media."""
        return f"{medium}/{raw_id}" if medium and len(self._schema.media) > 1 else raw_id

    @property
    def media(self) -> tuple[str, ...]:
        """The media of the run."""
        return self._schema.media

    @property
    def titles(self) -> list[str | None]:
        """The title of each item; None if the data has none."""
        return self._items.title

    def medium(self, item: int) -> str:
        return self._items.medium[item]

    def raw_id(self, item: int) -> str:
        return self._items.raw_id[item]

    def title(self, item: int) -> str | None:
        """The item's title; None if the data has none."""
        return self._items.title[item] or None
