"""An evaluation as a table for Python, with a row for each figure of each system."""

from pathlib import Path

import pyarrow as pa

from streamfeat.rows import Rows
from train.evaluation.figures import ALL_MEDIA, Evaluation, RankingLine, RatingLine, Verdict

_PRINTED = ("hr@10", "ndcg@10", "mrr")


class EvaluationRows(Rows):
    """A row for each figure of each system, with its 95% interval; and the verdict.

    `verdicts` say whether the model is better than the baseline that was best on validation, for rankings with the
    target's time given and hidden, and for ratings. `advice` says what to try if one of them is not beaten.
    """

    def __init__(self, title: str, table: pa.Table, *, printed: pa.Table, found: Evaluation) -> None:
        """Prints the sentences of the verdicts after `title`, then `printed`."""
        sentences = [f"the model {verdict.text}" for verdict in found.verdicts]
        sentences += [f"to try: {advice}" for advice in found.advice]
        super().__init__("; ".join([title, *sentences]), table, json=found.to_json(), printed=printed)
        self.verdicts: tuple[Verdict, ...] = found.verdicts
        self.advice: tuple[str, ...] = found.advice


def evaluation_rows(run: Path, found: Evaluation) -> EvaluationRows:
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
    return EvaluationRows(title, pa.Table.from_pylist(rows), printed=pa.Table.from_pylist(printed), found=found)
