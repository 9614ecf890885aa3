"""Reads event files as a build would, and reports what it took them for: roles with samples, times, counts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.batches import EventBatch, Rejected
from streamfeat.events.casts import REASONS, Kind, cast_query
from streamfeat.events.column_samples import ColumnSamples
from streamfeat.events.encodings import encoding_hint
from streamfeat.events.event_paths import check_one_layout, expand, in_folder
from streamfeat.events.event_reader import DEFAULT_MEDIUM, read_batches
from streamfeat.events.formats import recognise
from streamfeat.events.odd_times import YEAR_1990, check_odd_times, newest_time, odd_times_warning
from streamfeat.events.remarks import busiest_user, ratings_apart
from streamfeat.events.scratch import scratch_folder
from streamfeat.events.source import Source
from streamfeat.events.splits import plan_splits, rows_notes
from streamfeat.events.statuses import advice
from streamfeat.events.unrated import levels_apart
from streamfeat.events.user_histories import UserHistories, histories_of
from streamfeat.events.whole_files import is_read_whole, read_whole
from streamfeat.events.words_for_nobody import without_words
from streamfeat.plain_text import date_text
from streamfeat.progress import Note, Progress
from streamfeat.schema import PLANNED

NUM_SAMPLES = 5


@dataclass(frozen=True)
class RoleReport:
    """One role of a file."""

    role: str
    column: str  # several joined by "+"; empty: the role has the same value in every row
    samples: tuple[str, ...]  # at most NUM_SAMPLES values, as in the file
    times: tuple[str, ...] = ()  # of the timestamp: what the samples are in UTC, or why one is no time


@dataclass(frozen=True)
class FileReport:
    """One event file, and how it is read."""

    path: str
    format: str
    time_unit: str
    note: str  # what was recognised, one line for the user
    roles: tuple[RoleReport, ...]
    left: tuple[str, ...]  # columns without a role


@dataclass(frozen=True)
class EventsReport:
    """What event files hold. All numbers but `rows` and `rejected` are of events, duplicates left out."""

    files: tuple[FileReport, ...]
    rows: int
    events: int
    users: int
    items: dict[str, int]  # by medium
    first: str  # UTC; empty without an event
    last: str
    rating_levels: tuple[float, ...]  # the distinct ratings, at most 100
    unrated: int
    planned: int
    tied: int  # with the same second as another event of their user
    undated: int  # with the time of another one, because they have none
    duplicates: int
    rejected: dict[str, int]  # rows that are not events, by reason
    rejected_rows: tuple[Rejected, ...]  # the first ones


def report_steps(events: Sequence[str], config: BuildConfig) -> Iterator[Note | Progress | EventsReport]:
    """Reads the event files `events` (names, folders or globs) as a build with `config` would, and yields a report at
    the end. Memory holds all events.

    Notes say what a build would say of them, and why it would stop. Raises the errors of recognising and reading them.
    """
    paths = expand(events)
    sources = []
    for path in paths.files:
        try:
            sources.append(recognise(path, config))
        except ConfigError as error:
            raise in_folder(paths, path, error, config) from None
    check_one_layout(paths, sources, config.columns)
    if paths.note:
        yield Note(paths.note)
    batches: list[EventBatch] = []
    odd: Counter[str] = Counter()
    with scratch_folder() as scratch:
        files = tuple(_file_report(source) for source in sources)
        newest = {path: newest_time(path) for path in paths.files}
        splits = plan_splits(sources)
        for note in rows_notes(splits):
            yield Note(note)
        total, done = sum(split.num_rows for split in splits), 0
        for split in splits:
            for batch in read_batches(split, scratch, DEFAULT_MEDIUM):
                batches.append(batch)
                odd["before 1990"] += int((batch.time < YEAR_1990).sum())
                odd["after the file"] += int((batch.time > newest[split.source.path]).sum())
                done += batch.num_rows
                yield Progress("reading", done, total, "rows")
    if not batches:
        raise DataError(f"{', '.join(paths.files)}: no rows; give a file that has events")
    rejected = [reject for batch in batches for reject in batch.rejected]
    found = histories_of(sources, config, batches, rejected, done)
    yield from _refusals(sources, config, rejected, odd, done)
    yield from _warnings(config, found, odd)
    yield _counted(files, found, rejected)


def _refusals(
    sources: Sequence[Source], config: BuildConfig, rejected: Sequence[Rejected], odd: Counter[str], num_rows: int
) -> Iterator[Note]:
    """Why a build of these files would stop."""
    if len(rejected) > config.max_rejected * num_rows:
        reasons = Counter(reject.reason for reject in rejected)
        told = [f"{number} {reason}" for reason, number in reasons.most_common()]
        text = f"{len(rejected)} of {num_rows} rows are bad ({', '.join(told)}), more than --max-rejected"
        text = f"build-shards would stop: {text} {config.max_rejected:g}"
        if words := [reject.value for reject in rejected if reject.reason == "unknown_status"]:
            text += f"; {advice(words)}"
        if reasons["invalid_utf8"]:
            text += f"; {encoding_hint(sources)}"
        yield Note(text, warning=True)
    try:
        check_odd_times(config, odd["before 1990"], odd["after the file"], num_rows - len(rejected))
    except ConfigError as error:
        yield Note(f"build-shards would stop: {error}", warning=True)


def _warnings(config: BuildConfig, found: UserHistories, odd: Counter[str]) -> Iterator[Note]:
    """What a build of these events would warn about."""
    for when, number in odd.items():
        if number:
            yield Note(odd_times_warning(config, number, when), warning=True)
    if len(found.time):
        events = np.diff(found.offsets)
        most = int(events.argmax())
        yield from busiest_user(found.users[most], int(events[most]), len(found.time), int((events > 0).sum()))
    rated = found.rating[~np.isnan(found.rating)]
    if config.unrated == "auto" and len(rated):
        levels, counts = np.unique(rated, return_counts=True)
        count_of = dict(zip(levels.tolist(), counts.tolist(), strict=True))
        yield from ratings_apart({level: count_of[level] for level in levels_apart(levels.tolist())}, len(rated))


def _counted(files: tuple[FileReport, ...], found: UserHistories, rejected: list[Rejected]) -> EventsReport:
    same = found.time[1:] == found.time[:-1]
    same[found.offsets[1:-1] - 1] = False  # of two users
    tied = np.append(same, False) | np.insert(same, 0, False) if len(found.time) else same
    media = np.array([medium for medium, _ in found.items])
    return EventsReport(
        files=files,
        rows=found.num_rows,
        events=len(found.time),
        users=len(found.users),
        items=dict(sorted(Counter(media.tolist()).items())),
        first=date_text(int(found.time.min())) if len(found.time) else "",
        last=date_text(int(found.time.max())) if len(found.time) else "",
        rating_levels=tuple(np.unique(found.rating[~np.isnan(found.rating)])[:100].tolist()),
        unrated=int(np.isnan(found.rating).sum()),
        planned=int((found.status == PLANNED).sum()),
        tied=int(tied.sum()),
        undated=found.undated,
        duplicates=found.duplicates,
        rejected=dict(Counter(reject.reason for reject in rejected).most_common()),
        rejected_rows=tuple(rejected[:NUM_SAMPLES]),
    )


def _file_report(source: Source) -> FileReport:
    samples = _samples(source)
    roles = [
        RoleReport(role, "+".join(_columns(source, role)), samples[role], _times(source, samples[role], role))
        for role in source.columns
    ]
    roles += [RoleReport(role, "", (value,)) for role, value in source.constants.items()]
    taken = {*source.columns.values(), *source.joined}
    return FileReport(
        path=source.path,
        format=source.format,
        time_unit=source.time_unit,
        note=source.note,
        roles=tuple(roles),
        left=tuple(name for name in source.column_names if name not in taken),
    )


def _columns(source: Source, role: str) -> tuple[str, ...]:
    return (source.columns[role], *(source.joined if role == "timestamp" else ()))


def _samples(source: Source) -> dict[str, tuple[str, ...]]:
    """The first values of each role that are not empty."""
    if is_read_whole(source):
        table = next(read_whole(source), pa.table({role: pa.array([], pa.string()) for role in source.columns}))
        values = {role: [value or "" for value in table[role].to_pylist()] for role in source.columns}
    else:
        columns = ColumnSamples(source)
        of_columns = {role: [columns.of(column) for column in _columns(source, role)] for role in source.columns}
        values = {role: [" ".join(parts) for parts in zip(*each, strict=True)] for role, each in of_columns.items()}
    return {role: tuple([value for value in each if value.strip()][:NUM_SAMPLES]) for role, each in values.items()}


def _times(source: Source, samples: Sequence[str], role: str) -> tuple[str, ...]:
    if role != "timestamp" or not samples:
        return ()
    ids = ["0"] * len(samples)
    if "timestamp" in source.decimal_commas:
        samples = [sample.replace(",", ".") for sample in samples]
    rows = pa.table({"user": ids, "item": ids, "timestamp": list(samples)})
    kinds: dict[str, Kind] = dict.fromkeys(rows.column_names, "text")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows", rows)
        unit = "iso" if source.time_unit == "timestamp" else source.time_unit  # a typed column is sampled as ISO text
        cast = connection.sql(cast_query(without_words("FROM rows", ["timestamp"]), kinds, unit)).to_arrow_table()
    pairs = zip(cast["time"].to_pylist(), cast["reason"].to_pylist(), strict=True)
    return tuple(REASONS[reason] if reason else date_text(time) for time, reason in pairs)
