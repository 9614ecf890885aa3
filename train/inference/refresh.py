"""Counts newer events into the tables that a run's model asks, without training."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import BuildConfig, ReadingConfig
from streamfeat.events.event_paths import expand
from streamfeat.events.user_histories import UserHistories, read_several
from streamfeat.plain_text import PrintedLines, date_text
from streamfeat.progress import Note
from streamfeat.schema import PLANNED
from streamfeat.store.files import sweep_temporaries
from streamfeat.store.locks import locked
from train.inference.catalogue import Catalogue
from train.runs.record import described, read_record
from train.runs.refreshed import REFRESHED, read_refreshed, write_refreshed
from train.runs.run_terms import newest_terms
from train.terms.watched import Watched


@dataclass(frozen=True, repr=False)
class Refreshed(PrintedLines):
    """The result: what the run knows now. All numbers but `items_unknown` and `rejected` are of events."""

    file: Path  # the refreshed tables; it does not exist if no event was ever counted
    counted: int
    ignored: int  # not later than the last event that was counted before
    unknown: int  # later, but of items that the run does not know
    items_unknown: int
    planned: int
    duplicates: int  # same user, item and time as another event
    rejected: dict[str, int]  # rows that are not events, by reason
    last_counted: int  # Unix seconds of the last counted event

    def _lines(self) -> Iterable[str]:
        last = date_text(self.last_counted)
        did = f"Refreshed {str(self.file)!r}" if self.counted else "Nothing new, no file was changed"
        yield f"{did}: {self.counted:,} events counted; the last one that counts was at {last}"
        yield f"  ignored, not later than the last one counted before: {self.ignored:,}"
        yield f"  of {self.items_unknown:,} items that the run does not know: {self.unknown:,}"
        rejected = sum(self.rejected.values())
        yield f"  planned: {self.planned:,}; duplicates: {self.duplicates:,}; rejected rows: {rejected:,}"


def refresh_steps(
    run: str | Path, events: Sequence[str], *, reading: ReadingConfig | None = None
) -> Iterator[Note | Refreshed]:
    """Counts the events of the event files `events` (names or patterns) that are later than the last counted one into
    the run folder `run`: what is popular at a time, and which items follow each other. Yields notes and the result.

    Events with an item target count, as in training. Earlier events of the same users only show what the new ones
    follow. The files are read as the run's dataset was, but with what `reading` sets. The tables are replaced in one
    step, so a reader sees the old or the new ones; those of training stay as they are. Memory holds all events of the
    files.

    Raises ConfigError if there is no run, no checkpoint or no such file, LockedError while the run trains, DataError if
    no row is an event, DamagedError if a file of the run is damaged.
    """
    run = Path(run)
    record = read_record(run)
    paths = expand(events)
    with locked(run, "trains, or counts events,"):
        sweep_temporaries(run)
        manifest, items = described(run, record)
        trained, digest = newest_terms(run)
        known = read_refreshed(run, digest) or trained
        schema = manifest.data_schema
        given = reading.model_dump(include=reading.model_fields_set) if reading else {}
        # Datasets of earlier versions record only what the user gave.
        before = BuildConfig() if manifest.readings else manifest.config
        config = before.model_copy(update={**given, "keep_planned": True})
        medium = schema.media[0] if len(schema.media) == 1 else None
        found = read_several(paths, config, medium=medium, readings=manifest.readings)
        yield Note(f"{', '.join(events)}: {found.recognised}")
        for text in found.read_otherwise:
            yield Note(text, warning=True)
        yield from _rejected(found)
        dense = Catalogue(items, schema).dense(found.items)
        later = found.time - schema.time_origin > known.popularity.last_time
        has_target = found.status != PLANNED
        terms = known.with_later(_watched(found, dense, schema.time_origin))
        if terms is not known:
            write_refreshed(run, terms, digest)
        unknown = dense[found.item] < 0
        missed = has_target & later & unknown
        yield Refreshed(
            file=run / REFRESHED,
            counted=int((has_target & later & ~unknown).sum()),
            ignored=int((has_target & ~later).sum()),
            unknown=int(missed.sum()),
            items_unknown=len(np.unique(found.item[missed])),
            planned=int((~has_target).sum()),
            duplicates=found.duplicates,
            rejected=dict(Counter(reject.reason for reject in found.rejected)),
            last_counted=schema.time_origin + terms.popularity.last_time,
        )


def _watched(found: UserHistories, dense: NDArray[np.int64], time_origin: int) -> Watched:
    """The events with an item target and an item that the run knows."""
    item = dense[found.item]
    every = Watched(found.offsets, item, found.time - time_origin, found.rating)
    return every.where((found.status != PLANNED) & (item >= 0))


def _rejected(found: UserHistories) -> Iterator[Note]:
    if found.rejected:
        first = found.rejected[0]
        yield Note(
            f"{len(found.rejected):,} of {found.num_rows:,} rows are not events; the first is row {first.row}: "
            f"{first.reason} ({first.value!r})",
            warning=True,
        )
