"""Bad rows: collects them in `rejected.csv`, and stops the build if there are too many."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from streamfeat.config import BuildConfig
from streamfeat.errors import DataError
from streamfeat.events.encodings import encoding_hint
from streamfeat.events.source import Source
from streamfeat.events.statuses import advice
from streamfeat.store.files import write_durably
from streamfeat.store.layout import REJECTED
from streamfeat.store.receipts import FileRecord, SplitReceipt

_SHOWN = 5  # an error shows so many bad rows
_SEARCHED = 100_000  # for words of unknown statuses


def collect_rejected(root: Path, splits: Sequence[SplitReceipt]) -> FileRecord | None:
    """Joins the splits' rejected rows, in input order, into `rejected.csv`. Returns None if no row was bad."""
    paths = [file.path for receipt in splits for file in receipt.files if file.path.endswith(".rejected.csv")]
    if not paths:
        (root / REJECTED).unlink(missing_ok=True)
        return None

    def parts() -> Iterator[bytes]:
        yield b"file,row,reason,value\n"
        for path in paths:
            yield (root / path).read_bytes()

    size, sha256 = write_durably(root, REJECTED, parts())
    return FileRecord(path=REJECTED, size=size, sha256=sha256)


def check_rejected(root: Path, config: BuildConfig, counts: Counter[str], sources: Sequence[Source]) -> None:
    """Raises DataError if the share of bad rows of `sources` is larger than `max_rejected`."""
    bad = sum(number for name, number in counts.items() if name.startswith("rejected_"))
    if bad <= config.max_rejected * counts["rows"]:
        return
    reasons = ", ".join(
        f"{number} {name.removeprefix('rejected_')}"
        for name, number in counts.most_common()
        if name.startswith("rejected_")
    )
    with (root / REJECTED).open(encoding="utf-8", newline="") as file:
        first = [
            f"  {row['file']}:{row['row']}: {row['reason']}: {row['value'][:80]!r}"
            for row in islice(csv.DictReader(file), _SHOWN)
        ]
    if counts["rejected_unknown_status"]:
        with (root / REJECTED).open(encoding="utf-8", newline="") as file:
            rows = islice(csv.DictReader(file), _SEARCHED)
            first.append("  " + advice(row["value"] for row in rows if row["reason"] == "unknown_status"))
    raise DataError(
        f"{bad} of {counts['rows']} rows are bad ({reasons}), more than --max-rejected {config.max_rejected:g}:\n"
        + "\n".join(first)
        + f"\nall of them are in {root / REJECTED}; raise --max-rejected, or check --columns or correct the rows "
        "and build with --overwrite" + (f"\n{encoding_hint(sources)}" if counts["rejected_invalid_utf8"] else "")
    )
