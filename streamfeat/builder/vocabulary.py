"""The item tables: the coordinator merges those of all splits and assigns final item ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamfeat.builder.tasks import ITEM_MAP_FILE, ITEMS_FILE, local_items_file, local_map_file
from streamfeat.config import BuildConfig
from streamfeat.errors import DataError
from streamfeat.store.array_files import map_arrays, text_arrays, texts_of, write_arrays
from streamfeat.store.receipts import SortedReceipt, SplitReceipt


def merge_items(root: Path, splits: Sequence[SplitReceipt]) -> int:
    """Gives the items of all splits provisional numbers, and writes each split's map local → provisional.

    Provisional numbers follow the first appearance in input order. Returns their number.
    """
    media = sorted({medium for receipt in splits for medium in receipt.facts.media})
    keys = pa.array([], pa.string())
    titles = pa.array([], pa.string())
    for number, receipt in enumerate(splits):
        table = map_arrays(root, local_items_file(number))
        local_media = pa.array(receipt.facts.media, pa.string())
        medium = local_media.take(pa.array(table["medium"]))
        # The first "/" ends the medium's name, which cannot contain one.
        local_keys = pc.binary_join_element_wise(medium, texts_of(table, "raw_id"), "/")
        places = pc.index_in(local_keys, value_set=keys)
        new = pc.is_null(places)
        new_numbers = len(keys) + np.cumsum(np.asarray(new)) - 1
        numbers = np.where(np.asarray(new), new_numbers, places.fill_null(0).to_numpy(zero_copy_only=False))
        local_titles = texts_of(table, "title")
        titles = _first_titles(titles, local_titles, places, new)
        keys = pa.concat_arrays([keys, local_keys.filter(new)])
        write_arrays(root, local_map_file(number), {"item": numbers.astype(np.int32)})
    cut = pc.find_substring(keys, "/")
    medium_names = [key[:at] for key, at in zip(keys.to_pylist(), cut.to_pylist(), strict=True)]
    raw_ids = pa.array([key[at + 1 :] for key, at in zip(keys.to_pylist(), cut.to_pylist(), strict=True)], pa.string())
    codes = {name: code for code, name in enumerate(media)}
    write_arrays(
        root,
        ITEMS_FILE,
        {
            "medium": np.array([codes[name] for name in medium_names], np.int32),
            **text_arrays("media", pa.array(media, pa.string())),
            **text_arrays("raw_id", raw_ids),
            **text_arrays("title", titles),
        },
    )
    return len(keys)


def _first_titles(titles: pa.StringArray, local: pa.StringArray, places: Any, new: Any) -> pa.StringArray:
    """The titles so far, with missing ones taken from a split's titles, and the titles of its new items appended."""
    known = np.flatnonzero(~np.asarray(new))
    if len(known) and len(titles):
        offered: list[str | None] = [None] * len(titles)
        for place, title in zip(
            places.take(pa.array(known)).to_pylist(), local.take(pa.array(known)).to_pylist(), strict=True
        ):
            offered[place] = title
        offers = pa.array(offered, pa.string()).fill_null("")
        titles = pc.if_else(pc.equal(titles, ""), offers, titles)
    return pa.concat_arrays([titles, local.filter(new)])


def item_events(
    root: Path, partitions: Sequence[SortedReceipt], num_provisional: int, before: int | None = None
) -> NDArray[np.int64]:
    """(num_provisional,) int64: events of each provisional item over all partitions; only those before the Unix second
    `before`, if given."""
    events = np.zeros(num_provisional, np.int64)
    for receipt in partitions:
        arrays = map_arrays(root, receipt.files[0].path)
        if before is None:
            events[arrays["counted_items"]] += arrays["item_events"]
        else:
            events += np.bincount(arrays["item"][arrays["time"] < before], minlength=num_provisional)
    return events


@dataclass(frozen=True)
class Vocabulary:
    """The items by final id: medium by medium, then by number of events (of training events, with a split by time),
    descending, then by raw id."""

    media: tuple[str, ...]
    medium_offsets: tuple[int, ...]
    raw_ids: pa.StringArray  # this and the next two: by final id
    titles: pa.StringArray
    events: NDArray[np.int64]

    def media_of_items(self) -> pa.StringArray:
        codes = np.repeat(np.arange(len(self.media)), np.diff(self.medium_offsets))
        return pa.array(self.media, pa.string()).take(pa.array(codes))


def final_items(root: Path, config: BuildConfig, events: NDArray[np.int64], frequency: NDArray[np.int64]) -> Vocabulary:
    """Assigns final ids to the items that have events left, and writes the map provisional → final. Inside a medium
    ids follow `frequency`, (provisional items,).

    Raises DataError if a medium of `config` has no event left.
    """
    table = map_arrays(root, ITEMS_FILE)
    found = texts_of(table, "media").to_pylist()
    codes = table["medium"]
    alive = [name for code, name in enumerate(found) if events[codes == code].sum() > 0]
    media = config.media or tuple(alive)
    gone = [name for name in media if name not in alive]
    if gone:
        raise DataError(
            f"medium {gone[0]!r} has no event left after the filters; leave it out of --media, or lower "
            "--min-item-events or --min-user-events"
        )
    place_of = np.full(len(found), len(media), np.int64)
    for place, name in enumerate(media):
        place_of[found.index(name)] = place
    raw_ids = texts_of(table, "raw_id")
    raw_rank = np.empty(len(events), np.int64)
    raw_rank[pc.sort_indices(raw_ids).to_numpy()] = np.arange(len(events))
    order = np.lexsort((raw_rank, -frequency, place_of[codes]))
    order = order[events[order] > 0]
    final = np.full(len(events), -1, np.int32)
    final[order] = np.arange(len(order), dtype=np.int32)
    write_arrays(root, ITEM_MAP_FILE, {"item": final})
    per_medium = np.bincount(place_of[codes[order]], minlength=len(media))
    return Vocabulary(
        media=tuple(media),
        medium_offsets=(0, *(int(edge) for edge in np.cumsum(per_medium))),
        raw_ids=raw_ids.take(pa.array(order)),
        titles=texts_of(table, "title").take(pa.array(order)),
        events=events[order],
    )


def with_titles(vocabulary: Vocabulary, titles: dict[str, str]) -> Vocabulary:
    """The vocabulary with `titles` (by raw id), from files next to the event files, for items without a title."""
    if not titles:
        return vocabulary
    named = [
        title or titles.get(raw_id, "")
        for raw_id, title in zip(vocabulary.raw_ids.to_pylist(), vocabulary.titles.to_pylist(), strict=True)
    ]
    return replace(vocabulary, titles=pa.array(named, pa.string()))


def merged_levels(parts: Iterable[tuple[float, ...] | None]) -> list[float] | None:
    """The distinct values of a column over all partitions; None if a partition has too many."""
    levels: set[float] = set()
    for part in parts:
        if part is None:
            return None
        levels.update(part)
    return sorted(levels)
