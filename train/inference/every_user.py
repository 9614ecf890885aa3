"""Writes lists for every user of a dataset to one Parquet file. Its memory does not grow with the number of users."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamfeat.errors import ConfigError, storage_errors
from streamfeat.plain_text import PrintedLines
from streamfeat.progress import Note, Progress
from streamfeat.store.files import replaced_durably
from streamfeat.store.histories import HistoryReader, read_held_out
from streamfeat.store.layout import USERS
from streamfeat.store.tables import check_table, read_user_columns
from train.inference.ask_time import AskTime
from train.inference.best_items import batch_users, best_items
from train.inference.queries import History, stored_histories
from train.inference.recommend import DEFAULT_K, check_k
from train.inference.scorer import Scorer
from train.runs.checkpoint import BEST
from train.runs.record import dataset_of

RECOMMENDATIONS_SCHEMA = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),  # raw id
        pa.field("at", pa.timestamp("s", "UTC"), nullable=False),  # t
        pa.field("medium", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # from 1
        pa.field("item", pa.string(), nullable=False),  # raw id
        pa.field("title", pa.string()),
        pa.field("probability", pa.float32(), nullable=False),  # P(watch at t), among the items of the medium
        pa.field("rating", pa.float32()),  # predicted; null if training had no rating of the medium
    ]
)


@dataclass(frozen=True, repr=False)
class Written(PrintedLines):
    """The result: the file is complete."""

    path: Path
    users: int
    rows: int

    def _lines(self) -> Iterable[str]:
        yield f"Recommendations {str(self.path)!r}: {self.users:,} users, {self.rows:,} rows"


def recommend_all_steps(
    run: str | Path,
    dataset: str | Path | None,
    out: str | Path,
    *,
    k: int = DEFAULT_K,
    at: datetime | int | None = None,
    seen: bool = False,
    checkpoint: str = BEST,
    overwrite: bool = False,
) -> Iterator[Note | Progress | Written]:
    """Writes the `k` likeliest items of each medium for every user of `dataset` to the Parquet file `out`.

    All events of a user are the history. Rows are ordered by user (dense ids), medium and rank. The arguments are those
    of `recommend_steps`. The file gets its name when it is complete. Raises ConfigError if it exists (unless
    `overwrite`) or the run was trained on another dataset, StorageError if the file cannot be written.
    """
    check_k(k)
    out = Path(out)
    with storage_errors(out):
        if out.exists() and not out.is_file():
            raise ConfigError(f"{out}: is not an ordinary file; give another name")
        if out.exists() and not overwrite:
            raise ConfigError(f"{out}: exists already; give another file, or --overwrite")
        if not out.parent.is_dir():
            raise ConfigError(f"{out}: its folder does not exist; make the folder, or give another file")
    scorer = Scorer.of_run(run, checkpoint=checkpoint, refreshed=True)
    dataset, manifest = dataset_of(run, dataset)
    check_table(dataset, USERS, manifest.digests_of(USERS))
    ask_time = AskTime.of(at, scorer.last_counted)
    yield Note(ask_time.text)
    training_events = read_held_out(dataset).training_events
    rows, num_users, step = 0, manifest.num_users, batch_users(manifest)
    with (
        HistoryReader(dataset, manifest) as reader,
        storage_errors(out),
        replaced_durably(out) as file,
        pq.ParquetWriter(file, RECOMMENDATIONS_SCHEMA) as writer,
    ):
        yield Progress("recommending", 0, num_users, "users")
        for first in range(0, num_users, step):
            last = min(first + step, num_users)
            names = read_user_columns(dataset, ["raw_id"], first, last)["raw_id"].combine_chunks()
            histories = stored_histories(reader.read(first, last), first, training_events[first:last])
            table = _table(scorer, names, histories, ask_time, k, seen=seen)
            writer.write_table(table)
            rows += len(table)
            yield Progress("recommending", last, num_users, "users")
    yield Written(out, num_users, rows)


def _table(
    scorer: Scorer, names: pa.StringArray, histories: Sequence[History], ask_time: AskTime, k: int, *, seen: bool
) -> pa.Table:
    """The lists of some users as rows."""
    schema = scorer.manifest.data_schema
    asked = np.array([ask_time.of_history(schema.time_origin + int(h.time[-1])) for h in histories], np.int64)
    times = (asked - schema.time_origin).tolist()
    shape = len(histories), len(schema.media), min(k, int(np.diff(schema.medium_offsets).max()))
    items = np.full(shape, -1, np.int64)
    probabilities, ratings = np.zeros(shape, np.float32), np.full(shape, np.nan, np.float32)
    for medium in range(len(schema.media)):
        best = best_items(scorer, histories, times, medium, k, seen=seen)
        places = slice(best.items.shape[1])
        items[:, medium, places], probabilities[:, medium, places] = best.items, best.probabilities
        if best.ratings is not None:
            ratings[:, medium, places] = best.ratings
    listed = items >= 0
    user, medium_of, place = np.nonzero(listed)
    item = items[listed].tolist()
    columns = {
        "user": names.take(pa.array(user)),
        "at": pa.array(asked[user], pa.timestamp("s", "UTC")),
        "medium": pa.array(schema.media, pa.string()).take(pa.array(medium_of)),
        "rank": (place + 1).astype(np.int32),
        "item": pa.array([scorer.items.raw_id[i] for i in item], pa.string()),
        "title": pa.array([scorer.items.title[i] for i in item], pa.string()),
        "probability": probabilities[listed],
        "rating": pa.array(ratings[listed], pa.float32(), from_pandas=True),  # NaN as null
    }
    return pa.table(columns, schema=RECOMMENDATIONS_SCHEMA)
