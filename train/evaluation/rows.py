"""An evaluation as a table for Python, with a row for each figure of each system."""

from pathlib import Path

import pyarrow as pa

from streamfeat.rows import Rows
from train.evaluation.figures import ALL_MEDIA, Evaluation, RankingLine, RatingLine

_PRINTED = ("hr@10", "ndcg@10", "mrr")


def evaluation_rows(run: Path, found: Evaluation) -> Rows:
    """All lines but differences and calibration. What is printed: the next event over all media, seen items removed."""
    lines: list[RankingLine | RatingLine] = [*found.ranking, *found.ratings, *found.horizon]
    rows = [
        {
            "target": line.protocol.target,
            "medium": line.protocol.medium,
            "seen": line.protocol.seen,
            "time": line.protocol.time,
            "system": line.system,
            "figure": name,
            "value": figure.value,
            "low": figure.low,
            "high": figure.high,
            "users": line.protocol.users,
        }
        for line in lines
        for name, figure in line.figures.items()
    ]
    asked = [line for line in found.ranking if line.protocol.medium == ALL_MEDIA and line.protocol.seen == "removed"]
    printed = [
        {"system": line.system, "time": line.protocol.time}
        | {name: line.figures[name].value for name in _PRINTED if name in line.figures}
        for line in asked
    ]
    protocol = asked[0].protocol
    title = f"{run}: each user's {protocol.target} ranked, seen items removed, {protocol.users:,} users"
    return Rows(title, pa.Table.from_pylist(rows), json=found.to_json(), printed=pa.Table.from_pylist(printed))
