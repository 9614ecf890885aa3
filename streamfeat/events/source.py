"""What an event file was recognised as: everything that reading it takes."""

from typing import Literal, get_args

from streamfeat.records import Frozen

Format = Literal["movielens-100k", "movielens-dat", "movielens-csv", "movietweetings", "recbole", "csv", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)

Compression = Literal["none", "gzip"]

# Units of a numeric timestamp; "iso" is text such as 2013-04-03T22:45:08Z; "timestamp" is a Parquet timestamp or
# date, whose unit its own type tells.
SourceTimeUnit = Literal["s", "ms", "us", "ns", "iso", "timestamp"]
TICKS_PER_SECOND: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

REQUIRED_ROLES = ("user", "item", "timestamp")
ROLES = (*REQUIRED_ROLES, "medium", "rating", "status", "completion", "title")


class Source(Frozen):
    """One event file and how to read it."""

    path: str
    format: Format
    columns: dict[str, str]  # role (of ROLES) → column; the required roles always
    column_names: tuple[str, ...]  # all columns in file order; invented where the file has no header
    time_unit: SourceTimeUnit
    note: str  # what was recognised, one line for the user
    delimiter: str = ""  # one or two ASCII characters; empty for Parquet
    quote: Literal["", '"'] = ""  # empty: quotes are ordinary characters
    header: bool = False  # the first line names the columns and is no row
    compression: Compression = "none"
