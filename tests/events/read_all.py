"""One call that reads an event file through every station of `streamfeat.events`."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from streamfeat.config import BuildConfig
from streamfeat.events.batches import Ids, Rejected
from streamfeat.events.event_reader import read_batches
from streamfeat.events.formats import recognise
from streamfeat.events.source import Source
from streamfeat.events.splits import plan_splits
from streamfeat.schema import STATUSES


class Row(NamedTuple):
    """One event as it was read; None for a missing rating or title."""

    user: str
    item: str
    time: int
    rating: float | None = None
    medium: str = "item"
    status: str = "completed"
    completion: float = 1.0
    title: str | None = None


class Read(NamedTuple):
    source: Source
    rows: list[Row]
    rejected: list[Rejected]
    num_rows: int

    @property
    def reasons(self) -> list[tuple[int, str]]:
        return [(reject.row, reject.reason) for reject in self.rejected]


def texts(ids: Ids) -> list[str]:
    """Raw ids as the file has them."""
    numbers = [str(number) for number in ids.number.tolist()]
    if ids.text is None:
        return numbers
    return [number if text is None else text for number, text in zip(numbers, ids.text.to_pylist(), strict=True)]


def read_all(
    path: Path,
    *,
    rows_per_split: int = 2_500_000,
    batch_rows: int = 500_000,
    scratch: Path | None = None,
    **config: Any,
) -> Read:
    """Everything in `path`, recognised, split and read."""
    source = recognise(str(path), BuildConfig(**config))
    rows: list[Row] = []
    rejected: list[Rejected] = []
    num_rows = 0
    for number, split in enumerate(plan_splits([source], rows_per_split)):
        assert split.number == number
        for batch in read_batches(split, scratch or path.parent, "item", batch_rows):
            assert batch.num_rows == len(batch.time) + len(batch.rejected)
            ratings = [None if math.isnan(rating) else rating for rating in batch.rating.tolist()]
            media = [batch.media[medium] for medium in batch.medium.tolist()]
            statuses = [STATUSES[status] for status in batch.status.tolist()]
            titles = batch.title.to_pylist() if batch.title is not None else [None] * len(batch.time)
            completions = [round(value, 6) for value in batch.completion.tolist()]
            rows += map(
                Row,
                texts(batch.user),
                texts(batch.item),
                batch.time.tolist(),
                ratings,
                media,
                statuses,
                completions,
                titles,
            )
            rejected += batch.rejected
            num_rows += batch.num_rows
    return Read(source, rows, rejected, num_rows)
