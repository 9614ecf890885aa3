"""Invented histories with structure that a model can learn, for the demo, benchmarks and tests.

The structure: a user likes two of a few tastes and drifts from one to the other. Series are watched in order. Items
differ in popularity and quality, users in leniency. Disliked items are often dropped. Planned items are watched some
days later. No data come from real people.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamfeat.errors import ConfigError
from streamfeat.schema import COMPLETED, PLANNED, STATUSES

NUM_TASTES = 8
MAX_SERIES_LEN = 6
FOLLOW_SHARE = 0.45  # probability that the next event is the next item of the series, if there is one
PLANNED_SHARE = 0.08  # of all events
OFF_TASTE = 0.03  # weight of an item of another taste
DAY = 86_400
FIRST_DAY = 16_436  # 2015-01-01
NUM_DAYS = 2_500  # users begin within so many days
_CHUNK_EVENTS = 1_000_000
_WATCHING, _ON_HOLD, _DROPPED = (STATUSES.index(name) for name in ("watching", "on_hold", "dropped"))

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Catalogue:
    """All items, medium by medium. The items of a series follow each other in their order."""

    series_end: Ints  # (items,) last item of the series
    taste: Ints  # (items,)
    quality: Floats  # (items,)
    raw_id: Ints  # (items,) number inside the medium, in random order
    cumulative: Floats  # (media · tastes · items per medium,): group + P(item up to this one | medium, taste)


def write_synthetic(
    path: Path,
    *,
    num_users: int,
    num_events: int,
    seed: int,
    media: Sequence[str] = ("anime", "manga"),
    items_per_medium: int = 500,
) -> None:
    """Writes `num_events` invented events of `num_users` users to `path`, a .csv or .parquet file.

    Columns: user, item (integers; items are numbered inside their medium), medium, timestamp (Unix seconds), rating
    (1 to 10, may be missing), status, completion. Each million events is sorted by time, so that users are mixed as in
    a log. The same arguments give the same events. Raises ConfigError if there are fewer events than users, or for
    another suffix.
    """
    if num_events < num_users or num_users < 1:
        raise ConfigError(f"{num_events} events for {num_users} users: every user needs at least one; raise num_events")
    rng = np.random.default_rng([seed, 0])
    catalogue = _invent_catalogue(rng, len(media), items_per_medium)
    lengths = _history_lengths(rng, num_users, num_events, len(media) * items_per_medium)
    # A chunk holds whole users, so it may exceed the limit by one history.
    chunk_of_user = (np.cumsum(lengths) - lengths) // _CHUNK_EVENTS
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(
            f"{path}: invented events are written as .csv or .parquet; give the file one of these suffixes"
        )
    with path.open("wb") as file:  # opened here: Arrow would read a name with a colon as a URI
        write, close = _writer(file, path.suffix)
        try:
            for chunk in range(int(chunk_of_user[-1]) + 1):
                users = np.flatnonzero(chunk_of_user == chunk)
                chunk_rng = np.random.default_rng([seed, 1, chunk])
                write(_invent_events(chunk_rng, catalogue, users, lengths[users], media))
        finally:
            close()


def _writer(file: BinaryIO, suffix: str) -> tuple[Callable[[pa.Table], None], Callable[[], None]]:
    """A function that appends a table to `file`, and one that ends it."""
    labels = pa.dictionary(pa.int8(), pa.string())
    fields = {
        "user": pa.int64(),
        "item": pa.int64(),
        "medium": labels,
        "timestamp": pa.int64(),
        "rating": pa.float32(),
        "status": labels,
        "completion": pa.float32(),
    }
    if suffix == ".parquet":
        parquet = pq.ParquetWriter(file, pa.schema(fields))
        return lambda table: parquet.write_table(table, row_group_size=2 * _CHUNK_EVENTS), parquet.close
    text = pa.schema([(name, pa.string() if kind == labels else kind) for name, kind in fields.items()])
    options = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")
    writer = pyarrow.csv.CSVWriter(file, text, write_options=options)
    return lambda table: writer.write_table(table.cast(text)), writer.close


def _invent_catalogue(rng: np.random.Generator, num_media: int, items_per_medium: int) -> _Catalogue:
    ends, tastes, qualities, raw_ids = [], [], [], []
    cumulative: list[Floats] = []
    for medium in range(num_media):
        lengths = rng.integers(1, MAX_SERIES_LEN + 1, items_per_medium)
        series = np.repeat(np.arange(items_per_medium), lengths)[:items_per_medium]
        index = np.arange(items_per_medium)
        first = np.searchsorted(series, series)
        ends.append(medium * items_per_medium + np.searchsorted(series, series, side="right") - 1)
        taste = rng.integers(0, NUM_TASTES, items_per_medium)[series]
        # Popularity falls with a random rank of the series; a sequel is rarely watched out of order.
        rank = rng.permutation(items_per_medium)[series]
        weight = (rank + 5.0) ** -0.8 * np.where(index == first, 1.0, 0.1)
        by_taste = weight * np.where(taste == np.arange(NUM_TASTES)[:, None], 1.0, OFF_TASTE)
        edges: Floats = np.cumsum(by_taste, axis=1)
        edges /= edges[:, -1:]
        cumulative.append(edges + (medium * NUM_TASTES + np.arange(NUM_TASTES)[:, None]))
        tastes.append(taste)
        qualities.append(rng.normal(0, 0.8, items_per_medium)[series] + rng.normal(0, 0.4, items_per_medium))
        raw_ids.append(rng.permutation(items_per_medium) + 1)
    return _Catalogue(
        np.concatenate(ends),
        np.concatenate(tastes),
        np.concatenate(qualities),
        np.concatenate(raw_ids),
        np.concatenate(cumulative).ravel(),
    )


def _history_lengths(rng: np.random.Generator, num_users: int, num_events: int, num_items: int) -> Ints:
    """(users,) events of each user, at least one, skewed as in a real log; their sum is `num_events`."""
    activity = np.minimum(rng.lognormal(0, 0.8, num_users), 6.0)
    share = np.minimum(activity / activity.sum(), num_items / (4 * num_events)) if num_users > 1 else activity
    return 1 + rng.multinomial(num_events - num_users, share / share.sum())


def _invent_events(
    rng: np.random.Generator, catalogue: _Catalogue, users: Ints, lengths: Ints, media: Sequence[str]
) -> pa.Table:
    """The events of `users`, sorted by time."""
    num_planned = rng.binomial(lengths - 1, PLANNED_SHARE)
    num_watched = lengths - num_planned
    user, item = _watched_items(rng, catalogue, num_watched, len(media))
    time = _times(rng, user, num_watched)
    rating, status, completion = _reactions(rng, catalogue, user, item, num_watched)
    # Planned events: some watched items, planned days before. Chosen for each user, so that lengths stay as given.
    order = np.lexsort((rng.random(len(user)), user))
    starts = np.cumsum(num_watched) - num_watched
    place = np.arange(len(user)) - starts[user]
    extra = order[place < np.minimum(num_planned, num_watched)[user]]
    spare = np.repeat(starts, np.maximum(num_planned - num_watched, 0))  # more plans than watches: repeat the first
    extra = np.concatenate([extra, spare])
    planned_time = time[extra] - (rng.exponential(9 * DAY, len(extra)) + DAY).astype(np.int64)

    time = np.concatenate([time, planned_time])
    by_time = np.argsort(time, kind="stable")
    column = {
        "user": np.concatenate([user, user[extra]]),
        "item": np.concatenate([item, item[extra]]),
        "rating": np.concatenate([rating, np.full(len(extra), np.nan)]),
        "status": np.concatenate([status, np.full(len(extra), PLANNED)]),
        "completion": np.concatenate([completion, np.zeros(len(extra))]),
    }
    column = {name: values[by_time] for name, values in column.items()}
    items_per_medium = len(catalogue.taste) // len(media)
    ratings = column["rating"].astype(np.float32)
    return pa.table(
        {
            "user": _scrambled(users)[column["user"]],
            "item": catalogue.raw_id[column["item"]],
            "medium": _labels(column["item"] // items_per_medium, media),
            "timestamp": time[by_time],
            "rating": pa.array(ratings, mask=np.isnan(ratings)),
            "status": _labels(column["status"], STATUSES),
            "completion": column["completion"].astype(np.float32),
        }
    )


def _scrambled(users: Ints) -> Ints:
    """Distinct ids without order: an odd factor permutes the numbers below 2^31."""
    return (users * 1_664_525 + 1_013_904_223) % 2**31


def _labels(codes: Ints, names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(list(names), pa.string()))


def _watched_items(
    rng: np.random.Generator, catalogue: _Catalogue, num_watched: Ints, num_media: int
) -> tuple[Ints, Ints]:
    """User (its place in the chunk) and item of each watch, user by user, oldest first. Few items occur twice."""
    num_users = len(num_watched)
    drawn = 3 * num_watched + 16  # more than are kept, because repeats are skipped
    starts = np.cumsum(drawn) - drawn
    user = np.repeat(np.arange(num_users), drawn)
    age = (np.arange(len(user)) - starts[user]) / drawn[user]
    tastes = rng.integers(0, NUM_TASTES, (num_users, 2))
    late = rng.random(len(user)) < age
    taste = tastes[user, late.astype(np.int64)]
    leaning = rng.beta(1.2, 1.2, num_users)  # preference for the first medium
    medium = np.where(rng.random(len(user)) < leaning[user], 0, rng.integers(0, num_media, len(user)))
    group = medium * NUM_TASTES + taste
    per_medium = len(catalogue.taste) // num_media
    place = np.searchsorted(catalogue.cumulative, group + rng.random(len(user)), side="right")
    own = np.minimum(place - group * per_medium, per_medium - 1) + medium * per_medium

    # A following event takes the item that is as many steps after the first item of its run as the event itself is.
    index = np.arange(len(user))
    follows = rng.random(len(user)) < FOLLOW_SHARE
    follows[starts] = False
    head = np.maximum.accumulate(np.where(follows, 0, index))
    next_item = own[head] + index - head
    item = np.where(next_item <= catalogue.series_end[own[head]], next_item, own)
    return _first_watches(user, item, num_watched, len(catalogue.taste))


def _first_watches(user: Ints, item: Ints, num_kept: Ints, num_items: int) -> tuple[Ints, Ints]:
    """The first `num_kept` draws of each user. Repeats of an item are kept only if nothing else is left."""
    key = user * num_items + item
    by_key = np.argsort(key, kind="stable")
    repeat = np.zeros(len(key), np.bool_)
    repeat[by_key[1:]] = key[by_key[1:]] == key[by_key[:-1]]
    order = np.lexsort((repeat, user))
    drawn = np.bincount(user, minlength=len(num_kept))
    rank = np.arange(len(user)) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    kept = np.sort(order[rank < num_kept[user]])  # `user` ascends, so it equals user[order]
    return user[kept], item[kept]


def _times(rng: np.random.Generator, user: Ints, num_watched: Ints) -> Ints:
    """(events,) Unix seconds: evening sessions of a few events, days apart. Ascending, except for long sessions."""
    num_users = len(num_watched)
    starts = np.cumsum(num_watched) - num_watched
    begins = rng.random(len(user)) < 0.4  # whether a session begins
    begins[starts] = True
    pace = rng.gamma(2, 2, num_users)  # mean days between sessions
    days = np.where(begins, 1 + rng.exponential(pace[user]).astype(np.int64), 0)
    days = np.cumsum(days)
    days -= days[starts][user]
    minutes = np.cumsum(np.where(begins, 0, rng.integers(21, 55, len(user))))
    session = np.maximum.accumulate(np.where(begins, np.arange(len(user)), 0))
    minutes -= minutes[session]
    evening = rng.normal(20, 1.5, len(user))[session]  # hour of the session's begin, where the user lives
    zone = rng.choice(np.array([-8, -5, 0, 1, 9]), num_users)
    first_day = FIRST_DAY + rng.integers(0, NUM_DAYS, num_users)
    clock = ((evening - zone[user]) * 3600).astype(np.int64) + minutes * 60 + rng.integers(0, 60, len(user))
    seconds: Ints = (first_day[user] + days) * DAY + clock
    return seconds


def _reactions(
    rng: np.random.Generator, catalogue: _Catalogue, user: Ints, item: Ints, num_watched: Ints
) -> tuple[Floats, Ints, Floats]:
    """Rating (NaN: none), status and completion of each watch."""
    num_users = len(num_watched)
    leniency = rng.normal(0, 0.9, num_users)
    mood = rng.normal(0, 0.7, (num_users, NUM_TASTES))  # the user's opinion of each taste
    liking = 6.8 + leniency[user] + catalogue.quality[item] + mood[user, catalogue.taste[item]]
    liking += rng.normal(0, 0.6, len(user))
    rating = np.clip(np.rint(liking), 1, 10)
    rating[rng.random(len(user)) >= rng.beta(4, 1.5, num_users)[user]] = np.nan

    chance = rng.random(len(user))
    dropped = chance < 1 / (1 + np.exp(1.6 * (liking - 4.5)))
    left = np.repeat(np.cumsum(num_watched), num_watched) - np.arange(len(user))  # 1 for the user's last event
    open_still = ~dropped & (chance > 1 - 0.5 / left)
    status = np.full(len(user), COMPLETED)
    status[dropped] = _DROPPED
    status[open_still] = np.where(rng.random(int(open_still.sum())) < 0.7, _WATCHING, _ON_HOLD)
    part = rng.integers(1, 19, len(user)) * 0.05
    return rating, status, np.where(status == COMPLETED, 1.0, np.where(dropped, part * 0.5, part))
