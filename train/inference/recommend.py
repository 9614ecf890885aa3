"""Recommends the likeliest next items of each medium for any history. It needs only the folder of a run."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.item_lists import read_item_list
from streamfeat.events.statuses import advice
from streamfeat.events.user_histories import UserHistories, read_histories
from streamfeat.progress import Note
from train.inference.ask_time import AskTime, TimeSource
from train.inference.best_items import Best, batch_users, best_items
from train.inference.catalogue import Catalogue
from train.inference.far_times import far_times
from train.inference.item_matching import Match, find_items
from train.inference.queries import History
from train.inference.scorer import Scorer
from train.runs.checkpoint import BEST

DEFAULT_K = 10

_NAMED = 5  # a note lists at most so many ids or rows
_OTHER_SCALE = 1.5  # times the highest rating of training: 10 beside 5 is another scale, 10 beside 9 is not


@dataclass(frozen=True)
class RecommendedItem:
    """One item of a list."""

    rank: int  # from 1
    item: str  # raw id
    title: str | None
    probability: float  # P(watch at t), among the items of the medium
    rating: float | None  # predicted, on the scale of the data; None if training had no rating of the medium


@dataclass(frozen=True)
class Recommendation:
    """The lists for one user."""

    user: str  # raw id
    at: int  # Unix seconds: t
    time_source: TimeSource
    events: int  # events of the history that the model sees as input; skipped ones are not counted
    skipped: int  # events whose item the run does not know
    unknown_items: tuple[str, ...]  # the items of the skipped events, with their medium if the run has several
    media: dict[str, tuple[RecommendedItem, ...]]  # by medium, the likeliest first


def recommend_steps(
    run: str | Path,
    history: str | Path,
    *,
    k: int | None = None,
    at: datetime | int | None = None,
    candidates: str | Path | None = None,
    seen: bool = False,
    checkpoint: str = BEST,
    match: Match = "auto",
    reading: BuildConfig | None = None,
    user: int = -1,
    training_events: int = 0,
) -> Iterator[Note | Recommendation]:
    """Yields the `k` likeliest items of each medium for each user of the event file `history` (`-`: standard input),
    and notes on what was read, what was left out and which time is used.

    `at` is the time of the predicted event (see `AskTime`). `candidates` is a file with the items to rank; no others
    are ranked. `k` is by default 10, with `candidates` all of them. With `seen`, items of the history may be
    recommended. `match` says how items are found among those of the run (see `find_items`). `reading` gives the format,
    columns and time unit of the event file.

    `user` is the dense id if the history is that of a user of the dataset, and `training_events` says how many of its
    first events the run was trained on. Raises ConfigError, DataError, DamagedError.
    """
    check_k(k)
    scorer = Scorer.of_run(run, checkpoint=checkpoint, refreshed=True)
    manifest, schema = scorer.manifest, scorer.manifest.data_schema
    ask_time = AskTime.of(at, scorer.last_counted)
    config = reading or BuildConfig()
    undated = config.undated or datetime.fromtimestamp(ask_time.at or scorer.last_counted, UTC).isoformat()
    config = config.model_copy(update={"keep_planned": manifest.config.keep_planned, "undated": undated})
    medium = schema.media[0] if len(schema.media) == 1 else None
    found = read_histories(history, config, medium=medium, readings=manifest.readings)
    found, scale = _on_the_scale(found, schema.rating_max)
    yield Note(f"{history}: {found.recognised}")
    for text in found.read_otherwise:
        yield Note(f"{history}: {text}", warning=True)
    if untrained := [scale.medium for scale in manifest.scales if not scale.targets]:
        yield Note(
            f"{', '.join(untrained)}: training had no targets of this medium, so its probabilities mean nothing",
            warning=True,
        )
    catalogue = Catalogue(scorer.items, schema)
    matched = find_items(catalogue, found, match)
    yield from matched.notes
    yield from scale
    known = _Known(found, matched.dense, schema.time_origin, user, training_events)
    if found.undated:
        yield Note(
            f"{found.undated:,} events without a date: they have the time of their user's first dated one, or {undated}"
        )
    yield from _notes(found, known, catalogue, ask_time)
    yield from far_times(found.time, manifest, config)
    chosen = None
    if candidates is not None:
        chosen, unknown = catalogue.chosen(read_item_list(candidates, schema.media))
        if unknown:
            yield Note(f"{candidates}: items unknown to the run: {len(unknown):,}, skipped: {_few(unknown)}", True)
        if not any(map(len, chosen)):
            raise ConfigError(
                f"{candidates}: the run knows none of its items; write raw ids as in the event files, one a line"
            )
    k = k or (DEFAULT_K if chosen is None else max(map(len, chosen)))
    step = batch_users(manifest)
    for first in range(0, len(found.users), step):
        users = range(first, min(first + step, len(found.users)))
        histories = [known.history(user) for user in users]
        asked = [ask_time.of_history(known.last_event(user)) for user in users]
        times = [at - schema.time_origin for at in asked]
        best = [
            best_items(scorer, histories, times, medium, k, seen=seen, chosen=chosen[medium] if chosen else None)
            for medium in range(len(schema.media))
        ]
        for row, user in enumerate(users):
            yield Recommendation(
                user=found.users[user],
                at=asked[row],
                time_source=ask_time.source,
                events=len(histories[row]),
                skipped=known.num_skipped(user),
                unknown_items=tuple(catalogue.name(*item) for item in known.unknown_items(user)),
                media={name: _listed(catalogue, best[medium], row) for medium, name in enumerate(schema.media)},
            )


def check_k(k: int | None) -> None:
    """Raises ConfigError unless `k` is None or at least 1."""
    if k is not None and k < 1:
        raise ConfigError(f"k {k}: must be at least 1")


@dataclass(frozen=True)
class _Known:
    """The histories of a file, with the dense ids of a run."""

    found: UserHistories
    dense: NDArray[np.int64]  # (items of the file,): the dense id; -1 if the run does not know the item
    time_origin: int
    dense_user: int  # of the only user, if it is one of the dataset; otherwise -1
    training_events: int

    def _events(self, user: int) -> slice:
        return slice(*self.found.offsets[user : user + 2].tolist())

    def history(self, user: int) -> History:
        """The events whose item is known."""
        found, events = self.found, self._events(user)
        item = self.dense[found.item[events]]
        keep = item >= 0
        return History(
            item=item[keep],
            time=found.time[events][keep] - self.time_origin,
            rating=found.rating[events][keep],
            status=found.status[events][keep],
            completion=found.completion[events][keep],
            user=self.dense_user,
            training_events=self.training_events,
        )

    def last_event(self, user: int) -> int:
        """Unix seconds of the last event, its item known or not. Now, if the user had only planned events and they were
        left out."""
        events = self._events(user)
        return int(self.found.time[events.stop - 1]) if events.stop > events.start else int(time.time())

    def num_skipped(self, user: int) -> int:
        """Events whose item is not known."""
        return int((self.dense[self.found.item[self._events(user)]] < 0).sum())

    def unknown_items(self, user: int) -> list[tuple[str, str]]:
        """(medium, raw id) of the unknown items, in the order of events."""
        item = self.found.item[self._events(user)]
        return [self.found.items[i] for i in dict.fromkeys(item[self.dense[item] < 0].tolist())]

    def users_without_history(self) -> list[str]:
        """Raw ids of the users without any known item."""
        known = np.concatenate([[0], np.cumsum(self.dense[self.found.item] >= 0)])
        counts = np.diff(known[self.found.offsets])
        return [self.found.users[user] for user in np.flatnonzero(counts == 0).tolist()]


def _on_the_scale(found: UserHistories, rating_max: float) -> tuple[UserHistories, list[Note]]:
    """The histories without ratings if these are on another scale, 100 instead of 10, and what to say about it."""
    highest = float(np.nanmax(found.rating, initial=-np.inf))
    if not rating_max or highest <= rating_max:
        return found, []
    text = f"ratings up to {highest:g}, but training had at most {rating_max:g}: give ratings on that scale"
    if highest <= _OTHER_SCALE * rating_max:
        return found, [Note(text, warning=True)]
    unrated = replace(found, rating=np.full_like(found.rating, np.nan))
    return unrated, [Note(f"{text}; until then none of them counts", warning=True)]


def _notes(found: UserHistories, known: _Known, catalogue: Catalogue, ask_time: AskTime) -> Iterator[Note]:
    if found.rejected:
        reasons = Counter(reject.reason for reject in found.rejected)
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
        rows = _few([f"row {reject.row} ({reject.value!r})" for reject in found.rejected])
        if words := [reject.value for reject in found.rejected if reject.reason == "unknown_status"]:
            rows += f"; {advice(words)}"
        yield Note(f"{len(found.rejected):,} of {found.num_rows:,} rows are not events: {counts}; {rows}", warning=True)
    if found.duplicates:
        yield Note(f"{found.duplicates:,} duplicate events (same user, item and time): the last one of each counts")
    unknown = known.dense < 0
    if unknown.any():
        names = [catalogue.name(*found.items[item]) for item in np.flatnonzero(unknown).tolist()]
        skipped = int(unknown[found.item].sum())
        yield Note(
            f"items unknown to the run: {len(names):,}, with {skipped:,} of {len(found.item):,} events, skipped: "
            f"{_few(names)}",
            warning=True,
        )
    if empty := known.users_without_history():
        yield Note(
            f"users without any event that the run knows: {len(empty):,}; they get the lists of an empty history "
            f"({_few(empty)})",
            warning=True,
        )
    yield Note(ask_time.text)
    if ask_time.at is not None and len(found.time) and (late := int((found.time > ask_time.at).sum())):
        yield Note(f"{late:,} events are later than that time; they count as part of the history", warning=True)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(name[:60] for name in names[:_NAMED]) + more


def _listed(catalogue: Catalogue, best: Best, row: int) -> tuple[RecommendedItem, ...]:
    return tuple(
        RecommendedItem(
            rank=place + 1,
            item=catalogue.raw_id(item),
            title=catalogue.title(item),
            probability=float(best.probabilities[row, place]),
            rating=None if best.ratings is None else float(best.ratings[row, place]),
        )
        for place, item in enumerate(best.items[row].tolist())
        if item >= 0
    )
