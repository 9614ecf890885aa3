"""The description of an event file: everything that is needed to read it."""

from typing import Literal, get_args

from pydantic import Field

from streamfeat.records import Frozen

Format = Literal[
    "movielens-100k",
    "movielens-dat",
    "movielens-csv",
    "movietweetings",
    "recbole",
    "csv",
    "parquet",
    "json",
    "json-lines",
    "anilist",
    "goodreads",
    "imdb",
    "kitsu",
    "lastfm",
    "letterboxd",
    "myanimelist",
    "netflix",
    "simkl",
    "spotify",
    "steam",
    "trakt",
]
FORMATS: tuple[str, ...] = get_args(Format)

Compression = Literal["none", "gzip"]

# How times are written: what numbers count (see `time_units`), or a form of text of `time_forms`. "timestamp" is a
# Parquet timestamp or date; its type has the unit.
SourceTimeUnit = Literal[
    "s",
    "ms",
    "us",
    "ns",
    "dotnet",
    "filetime",
    "webkit",
    "apple",
    "apple-ns",
    "days",
    "excel-days",
    "timestamp",
    "iso",
    "yyyymmdd",
    "dmy",
    "mdy",
    "ctime",
    "parts",
]

# What a completion counts: a share from 0 to 1, percent, or parts of the role total (episodes of all episodes).
CompletionUnit = Literal["share", "percent", "total"]

ID_ROLES = ("user", "item")
REQUIRED_ROLES = ("user", "item", "timestamp")
ROLES = (*REQUIRED_ROLES, "medium", "rating", "status", "completion", "total", "title")


class Source(Frozen):
    """One event file and how to read it."""

    path: str
    format: Format
    columns: dict[str, str]  # role (of ROLES) → column; with `constants` it has the required roles
    column_names: tuple[str, ...]  # all columns in file order; invented if the file has no header
    time_unit: SourceTimeUnit
    note: str  # what was recognised, one line for the user
    delimiter: str = ""  # one or two ASCII characters; empty for Parquet
    quote: Literal["", '"'] = ""  # empty: quotes are ordinary characters
    header: bool = False  # whether the first line names the columns
    compression: Compression = "none"
    statuses: dict[str, str] = Field(default_factory=dict)  # words and numbers beside those of statuses.WORDS → status
    completion_unit: CompletionUnit = "share"
    list_user: str = ""  # of a site's list: the user of entries that name none; empty for other files
    list_media: tuple[str, ...] = ()  # of a site's list
    undated: str = ""  # of a site's list: the ISO time of a user without any date; empty: its rows are rejected
    encoding: str = ""  # of text, a name of Python's codecs; empty: UTF-8
    seems: str = ""  # the encoding that a needed column seems to have where it is not UTF-8; empty: it is
    json_pointers: tuple[str, ...] = ()  # of JSON: where the columns of `column_names` lie in a row (RFC 6901)
    float_ids: tuple[str, ...] = ()  # roles whose whole numbers are written as 7.0
    first_line: int = 1  # physical line of the header, or of the first row: 2 after a line `sep=;`
    over_lines: bool = False  # whether quoted fields hold line breaks, so that a row may be several lines
    rows_note: str = ""  # what counting the rows found out about quotes and line breaks, one line for the user
    decimal_commas: tuple[str, ...] = ()  # roles whose numbers are written as 7,5
    joined: tuple[str, ...] = ()  # columns whose text follows that of the timestamp's column
    unrated: tuple[float, ...] = ()  # ratings that mean that there is none
    constants: dict[str, str] = Field(default_factory=dict)  # role → its value in every row
