"""Reads the histories in an event file with raw ids, cleaned as in a build, but without a dataset."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError, StorageError, StreamfeatError
from streamfeat.events.batches import EventBatch, Ids, Rejected
from streamfeat.events.encodings import encoding_hint
from streamfeat.events.event_order import Times, TooLongHistoryError, joined_fractions, order_events
from streamfeat.events.event_paths import EventPaths, check_one_layout, expand, in_folder
from streamfeat.events.event_reader import read_batches
from streamfeat.events.lists.sites import without_most_lists
from streamfeat.events.reading_again import recognise_again
from streamfeat.events.scratch import scratch_folder
from streamfeat.events.source import Source
from streamfeat.events.splits import plan_splits, rows_notes
from streamfeat.events.statuses import advice
from streamfeat.reading import Reading
from streamfeat.schema import PLANNED

STDIN = "-"  # stands for standard input instead of an event file


@dataclass(frozen=True)
class UserHistories:
    """Clean events by user, oldest first at the resolution of the file; equal times in input order; of duplicates only
    the last one."""

    users: list[str]  # raw ids, in order of first appearance
    offsets: NDArray[np.int64]  # (users + 1,): user u has the events offsets[u] to offsets[u + 1] - 1
    items: list[tuple[str, str]]  # (medium, raw id), distinct, in order of first appearance
    titles: list[str]  # of `items`; empty if the files have none
    item: NDArray[np.int64]  # (events,) index into `items`
    time: NDArray[np.int64]  # (events,) Unix seconds, floored
    rating: NDArray[np.float32]  # (events,) NaN if missing
    status: NDArray[np.uint8]  # (events,) index into schema.STATUSES
    completion: NDArray[np.float32]  # (events,)
    recognised: str  # one line for the user: the formats of the files
    num_rows: int
    undated: int  # rows that have the time of another one, or `undated` of the configuration
    duplicates: int
    rejected: list[Rejected]  # rows that are not events
    read_otherwise: list[str]  # texts: what is read otherwise than the dataset's files


def read_histories(
    path: str | Path, config: BuildConfig, *, medium: str | None, readings: Sequence[Reading] = ()
) -> UserHistories:
    """All histories in the event file, folder or glob `path` (`-`: standard input), with the format, columns, time
    unit, encoding and planned option of `config`.

    `readings` say how the files of a dataset were read: this one is read alike (see `recognise_again`).
    `medium` is the medium of a file without a medium column; with None such a file is an error. Memory holds all
    events. Raises the errors of `formats.recognise`, DataError if no row is an event, StorageError if there is no place
    for temporary files.
    """
    with scratch_folder() as folder:
        if str(path) != STDIN:
            return _read(expand([str(path)]), folder, config, medium, readings)
        file = folder / "input"
        _copy_stdin(file)
        try:
            return _read(EventPaths([str(file)]), folder, config, medium, readings)
        except StreamfeatError as error:
            raise type(error)(str(error).replace(str(file), "standard input")) from None


def read_several(
    paths: EventPaths, config: BuildConfig, *, medium: str | None, readings: Sequence[Reading] = ()
) -> UserHistories:
    """All histories in several event files, as `read_histories` reads one. A user's events may lie in any of them."""
    with scratch_folder() as folder:
        return _read(paths, folder, config, medium, readings)


def _copy_stdin(file: Path) -> None:
    if sys.stdin is None:  # standard input is closed
        raise ConfigError("standard input is closed: pipe the events in, or give their file with --history FILE")
    try:
        with file.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
    except OSError as error:
        raise StorageError(
            f"standard input cannot be copied to {file} ({error.strerror}); free space there, or give a file instead"
        ) from None


def _read(
    paths: EventPaths, scratch: Path, config: BuildConfig, medium: str | None, readings: Sequence[Reading]
) -> UserHistories:
    pairs = [_source(paths, path, config, medium, readings) for path in paths.files]
    sources = [source for source, _ in pairs]
    check_one_layout(paths, sources, config.columns)
    splits = plan_splits(sources)
    batches = [batch for split in splits for batch in read_batches(split, scratch, medium or "")]
    rejected = [reject for batch in batches for reject in batch.rejected]
    num_rows = sum(batch.num_rows for batch in batches)
    if len(rejected) == num_rows:
        found = f"the first is row {rejected[0].row}: {rejected[0].reason}" if rejected else "it has no rows"
        if any(reject.reason == "invalid_utf8" for reject in rejected):
            found += f"; {encoding_hint(sources)}"
        if words := [reject.value for reject in rejected if reject.reason == "unknown_status"]:
            found += f"; {advice(words)}"
        raise DataError(f"{', '.join(paths.files)}: no row of {num_rows} is an event ({found}); correct the file")
    histories = histories_of(sources, config, batches, rejected, num_rows)
    told = [histories.recognised, paths.note, *rows_notes(splits)]
    otherwise = list(dict.fromkeys(text for _, texts in pairs for text in texts))
    return replace(histories, recognised="; ".join(filter(None, told)), read_otherwise=otherwise)


def _source(
    paths: EventPaths, path: str, config: BuildConfig, medium: str | None, readings: Sequence[Reading]
) -> tuple[Source, list[str]]:
    try:
        source, otherwise = recognise_again(path, config, readings)
    except ConfigError as error:
        raise in_folder(paths, path, error, config) from None
    if medium is None and "medium" not in {**source.columns, **source.constants}:
        raise ConfigError(
            f"{path}: no column for medium; found {', '.join(source.column_names)}; "
            "add one, name it with --columns medium=NAME, or give one for all rows with --constant medium=NAME"
        )
    return source, otherwise


def histories_of(
    sources: Sequence[Source],
    config: BuildConfig,
    batches: list[EventBatch],
    rejected: list[Rejected],
    num_rows: int,
) -> UserHistories:
    users = pa.concat_arrays([_texts(batch.user) for batch in batches]).dictionary_encode()
    items = pa.concat_arrays([_item_keys(batch) for batch in batches])
    titles = pa.concat_arrays([_titles(batch) for batch in batches])
    columns = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("time", "rating", "status", "completion")
    }
    columns["user"] = np.array(users.indices)  # a copy, because kernels do not accept read-only memory
    fraction = joined_fractions([batch.fraction for batch in batches], [len(batch.time) for batch in batches])
    if not config.keep_planned:
        keep = columns["status"] != PLANNED
        items, titles = items.filter(pa.array(keep)), titles.filter(pa.array(keep))
        columns = {name: values[keep] for name, values in columns.items()}
        fraction = None if fraction is None else fraction[keep]
    items = items.dictionary_encode()
    user, item = columns.pop("user"), np.array(items.indices)
    try:
        order, offsets = order_events(user, Times(columns["time"], fraction), item, len(users.dictionary))
    except TooLongHistoryError as error:
        paths = ", ".join(source.path for source in sources)
        raise DataError(
            f"{paths}: user {users.dictionary[error.user]}: has too many events over too long a time to be sorted; "
            "sort the rows by time, or leave that user out"
        ) from None
    told, more = without_most_lists(sources)
    keys = [key.partition("/") for key in items.dictionary.to_pylist()]  # a medium's name has no "/"
    return UserHistories(
        users=users.dictionary.to_pylist(),
        offsets=offsets,
        items=[(medium, raw_id) for medium, _, raw_id in keys],
        titles=_first_titles(titles, item, len(keys)),
        item=item[order].astype(np.int64),
        **{name: values[order] for name, values in columns.items()},
        recognised="; ".join(filter(None, [*dict.fromkeys(source.note for source in told), more])),
        num_rows=num_rows,
        undated=sum(batch.undated for batch in batches),
        duplicates=len(user) - len(order),
        rejected=rejected,
        read_otherwise=[],
    )


def _titles(batch: EventBatch) -> pa.StringArray:
    return pa.nulls(len(batch.time), pa.string()) if batch.title is None else batch.title


def _first_titles(titles: pa.StringArray, item: NDArray[np.int64], num_items: int) -> list[str]:
    """The first title of each item; empty if it has none."""
    named = np.flatnonzero(titles.is_valid().to_numpy(zero_copy_only=False))
    items, first = np.unique(item[named], return_index=True)
    found = [""] * num_items
    for number, title in zip(items.tolist(), titles.take(pa.array(named[first])).to_pylist(), strict=True):
        found[number] = title
    return found


def _texts(ids: Ids) -> pa.StringArray:
    """Raw ids as in the file."""
    numbers = pa.array(ids.number).cast(pa.string())
    return numbers if ids.text is None else pc.coalesce(ids.text, numbers)


def _item_keys(batch: EventBatch) -> pa.StringArray:
    """`<medium>/<raw id>` of each row."""
    media = pa.array(batch.media, pa.string()).take(pa.array(batch.medium))
    return pc.binary_join_element_wise(media, _texts(batch.item), "/")
