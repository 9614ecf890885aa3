"""Recommendations as rows, which print well, for Python's calls."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from streamfeat.progress import Note
from streamfeat.rows import Rows
from train.inference.every_user import RECOMMENDATIONS_SCHEMA
from train.inference.recommend import Recommendation


def recommendation_rows(run: Path, found: Sequence[Recommendation], notes: Sequence[Note]) -> Rows:
    """A row for each item of each list of the run `run`; `to_dict()` is the JSON of docs/recommend.md."""
    rows = [
        {"user": one.user, "at": one.at, "medium": medium, **asdict(item)}
        for one in found
        for medium, items in one.media.items()
        for item in items
    ]
    whose = f"user {found[0].user}, {found[0].events:,} events" if len(found) == 1 else f"{len(found):,} users"
    values = {
        "notes": [asdict(note) for note in notes],
        "recommendations": [asdict(one) for one in found],
    }
    table = pa.Table.from_pylist(
        rows,
        schema=pa.schema(
            [pa.field("at", pa.int64()) if field.name == "at" else field for field in RECOMMENDATIONS_SCHEMA]
        ),
    )
    return Rows(f"{run}: {whose}", table.cast(RECOMMENDATIONS_SCHEMA), json=values)
