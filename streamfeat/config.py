"""The configurations of a build and of a stream. They are frozen, check themselves and refuse unknown keys.

A field is also an option of the command line, with its bounds and default; its `description` is the help text.
"""

import codecs
import difflib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from streamfeat.errors import ConfigError
from streamfeat.records import Frozen
from streamfeat.schema import FIELD_NAMES, STATUSES
from streamfeat.split_rule import SplitRule

MAX_COUNT = 2**48  # largest count: keeps its product with the length of a window or a row below 2^63
MOST_WORKERS = 1024
AUTO_ENCODING = "auto"  # UTF-8, or what a byte order mark says
_NEXT_ROLE = re.compile(r",(?=\s*\w+\s*=)")
MEDIUM_NAME = re.compile(r"[a-z0-9_]{1,32}")


def check_medium_name(name: str) -> str:
    """`name` in lower case. Raises ValueError if a medium cannot have this name."""
    name = name.lower()
    if not MEDIUM_NAME.fullmatch(name):
        raise ValueError(f"a medium's name matches [a-z0-9_]{{1,32}} after lower-casing; {name!r} does not")
    if name in FIELD_NAMES:
        raise ValueError(f"{name!r} is the name of a token field and cannot name a medium")
    return name


def check_encoding(name: str) -> str:
    """`name` if it is "auto" or Python knows a text encoding of this name. Raises ValueError otherwise."""
    if name == AUTO_ENCODING:
        return name
    try:
        codec = codecs.lookup(name)
        # Raises LookupError for codecs of bytes to bytes (base64) and of text to text (rot13).
        b"a".decode(name)
    except UnicodeDecodeError:
        pass  # half a character of UTF-16
    except (LookupError, ValueError):
        raise ValueError(
            f"{name!r} is not a text encoding that Python knows; give for instance cp1252, latin-1, utf-16-le, "
            "shift_jis or gb18030"
        ) from None
    return codec.name


def check_workers(workers: int) -> None:
    """Raises ConfigError if `workers` is not 1 to MOST_WORKERS."""
    if not 1 <= workers <= MOST_WORKERS:
        raise ConfigError(f"workers: {workers} processes cannot share the work; give 1 to {MOST_WORKERS:,}")


@dataclass(frozen=True)
class Option:
    """How a field appears as an option of the command line. A field may have several; their settings are joined."""

    panel: str = ""  # heading in --help; empty: Options
    metavar: str = ""  # how its value is written; empty: from the type
    default: str = ""  # how its default is written; empty: the default itself
    flags: tuple[str, ...] = ()  # spellings; empty: --name, or --name/--no-name for a truth value
    repeated: bool = False  # whether it may be typed several times


def parse_names(value: Any) -> Any:
    """`"a, b"` or a list as a tuple of names; anything else as it is."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value) if isinstance(value, list) else value


def parse_columns(value: Any) -> Any:
    """`"user=uid,item=iid"`, or a list of such texts, as a mapping; anything else as it is.

    A comma begins another role only before a word and `=`, so that a column's name may hold one. A name may be empty.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    found: dict[str, str] = {}
    for pair in (pair for text in texts for pair in _NEXT_ROLE.split(text) if pair.strip()):
        role, equals, column = (part.strip() for part in pair.partition("="))
        if not (role and equals):
            raise ValueError(f"{role!r} is not role=column; write user=uid,item=iid,timestamp=ts")
        if role in found:
            raise ValueError(f"{role} is given twice; keep one")
        found[role] = column
    return found


def parse_constants(value: Any) -> Any:
    """As `parse_columns`, but every role needs a value."""
    found = parse_columns(value)
    if isinstance(found, dict) and "" in found.values():
        raise ValueError("a constant needs a value; write user=me")
    return found


def parse_statuses(value: Any) -> Any:
    """`"seen=completed,5=dropped"` as a mapping; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    pairs = [pair.rpartition("=") for pair in value.split(",") if pair.strip()]
    for word, equals, status in pairs:
        if not (word and equals and status):
            raise ValueError(f"{status!r} is not WORD=status; write seen=completed,5=dropped")
    return {word.strip(): status.strip() for word, _, status in pairs}


def check_statuses(words: dict[str, str]) -> dict[str, str]:
    """`words`. Raises ValueError if one means no status."""
    for word, status in words.items():
        if status not in STATUSES:
            close = difflib.get_close_matches(status, STATUSES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"statuses: {', '.join(STATUSES)}"
            raise ValueError(f"{word}={status}: {status!r} is no status; {hint}")
    return words


def parse_unrated(value: Any) -> Any:
    """`"0,-1"`, a number or a list as ratings, `none` as no rating; anything else as it is."""
    if isinstance(value, str) and value != "auto":
        return () if value == "none" else tuple(part.strip() for part in value.split(","))
    return (value,) if isinstance(value, int | float) else tuple(value) if isinstance(value, list) else value


def parse_limit(value: Any) -> Any:
    """The text `"0"`, which users often type, as `"unlimited"`; anything else as it is."""
    return "unlimited" if value == "0" else value


def check_date(value: str) -> str:
    """`value`, a date or a date and time in ISO form, or empty. Raises ValueError for anything else."""
    if value:
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is not a date; write 2015-04-30") from None
    return value


UtcDate = Annotated[str, AfterValidator(check_date)]
MediumName = Annotated[str, BeforeValidator(check_medium_name)]
MediumNames = Annotated[tuple[MediumName, ...], BeforeValidator(parse_names), Option(metavar="NAME,…")]
Columns = Annotated[
    dict[str, str],
    BeforeValidator(parse_columns),
    Option(metavar="ROLE=COLUMN,…", default="by name and values", repeated=True),
]
Constants = Annotated[
    dict[str, str], BeforeValidator(parse_constants), Option(metavar="ROLE=VALUE,…", default="none", repeated=True)
]
Statuses = Annotated[
    dict[str, str],
    BeforeValidator(parse_statuses),
    AfterValidator(check_statuses),
    Option(metavar="WORD=STATUS,…", default="known words"),
]
Unrated = Annotated[
    tuple[float, ...] | Literal["auto"],
    BeforeValidator(parse_unrated),
    Option(metavar="RATING,…|none", default="by the site of the file"),
]
Limit = Annotated[int | Literal["unlimited"], BeforeValidator(parse_limit)]
Size = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Compression = Literal["lz4", "zstd", "none"]
Objective = Literal["causal", "masked"]
MaskPolicy = Literal["disjoint", "seed"]
SplitName = Literal["training", "validation"]
TimeUnit = Literal[
    "auto", "s", "ms", "us", "ns", "dotnet", "filetime", "webkit", "apple", "apple-ns", "days", "excel-days",
    "yyyymmdd", "dmy", "mdy", "iso",
]  # fmt: skip
Encoding = Annotated[str, AfterValidator(check_encoding), Option(metavar="NAME")]


_READING, _SELECTION, _WINDOWS, _STORAGE = map(Option, ("Event files", "What is kept", "Windows", "Storage"))


class ReadingConfig(Frozen):
    """How event files are read."""

    columns: Annotated[Columns, _READING] = Field(
        default_factory=dict,
        description="Columns by role: user, item, timestamp, rating, …; by place (#1) where they have no names; an "
        "empty one leaves the role out.",
    )
    constant: Annotated[Constants, _READING] = Field(
        default_factory=dict, description="Roles with one value in every row, as user=me."
    )
    format: Annotated[str, _READING] = Field(
        default="auto", description="How files are read; auto recognises each one."
    )
    time_unit: Annotated[TimeUnit, _READING] = Field(
        default="auto",
        description="Unit of numeric times (days since 1970 or of a spreadsheet) or form of dates; auto: recognised.",
    )
    status: Annotated[Statuses, _READING] = Field(
        default_factory=dict, description="What words and numbers of the status column mean."
    )
    unrated: Annotated[Unrated, _READING] = Field(
        default="auto", description="Ratings that mean that there is none, as 0 or -1."
    )
    undated: Annotated[UtcDate, _READING, Option(metavar="DATE", default="rejected")] = Field(
        default="", description="The date, such as 2015-04-30, of a site's list that has none."
    )
    encoding: Annotated[Encoding, _READING] = Field(
        default="auto",
        description="Encoding of text, by Python's name; auto: UTF-8, or as a byte order mark says.",
    )


class BuildConfig(ReadingConfig):
    """Everything that decides the bytes of a dataset, and `packings`, which only decides how many packings it has."""

    max_rejected: Annotated[float, _READING] = Field(
        default=0.01, ge=0, le=1, description="Share of bad rows above which a build stops."
    )
    media: Annotated[MediumNames, _SELECTION, Option(default="all, sorted")] = Field(
        default=(), description="Media, in order; others are left out."
    )
    keep_planned: Annotated[bool, _SELECTION, Option(flags=("--planned/--no-planned",))] = Field(
        default=True, description="Keep planned events as input; they are never targets."
    )
    min_item_events: Annotated[Size, _SELECTION] = Field(
        default=1, description="Drop items with fewer events: once, before users."
    )
    min_user_events: Annotated[Size, _SELECTION] = Field(
        default=1, description="Drop users with fewer events: once, after items."
    )
    split: Annotated[str, _SELECTION, Option(metavar="users:F|last:2|time:F|time:DATE[,DATE]")] = Field(
        default="users:0.01",
        description="Hold out a share F of users for validation, or each user's last two events, or, by time, the last "
        "F of all events as test and the F before as validation; with dates, validation begins at the first and the "
        "test at the second, or halfway to the end.",
    )
    window_len: Annotated[int, _WINDOWS] = Field(default=1024, ge=2, le=2**20, description="Tokens of a window.")
    max_document_len: Annotated[Limit, _WINDOWS] = Field(
        default="unlimited", description="Crop histories to this many tokens, CLS included."
    )
    packings: Annotated[int, _WINDOWS] = Field(
        default=1,
        ge=0,
        le=100_000,
        description="Differently shuffled layouts of the training windows; 0: none, for live training alone.",
    )
    seed: Annotated[int, _WINDOWS] = Field(
        default=20221221, ge=0, lt=2**63, description="Seed of split, partitions, crops and packings."
    )
    compression: Annotated[Compression, _STORAGE] = Field(
        default="lz4", description="lz4 for local disks, zstd for networks."
    )
    chunk_windows: Annotated[Size, _STORAGE] = Field(
        default=64, description="Windows of a Zarr chunk; halved while training has fewer than 96 chunks."
    )
    shard_windows: Annotated[Size, _STORAGE] = Field(
        default=2048, description="Windows of a Zarr shard, the unit of writing, at most."
    )

    @model_validator(mode="after")
    def _agree(self) -> "BuildConfig":
        if len(set(self.media)) != len(self.media):
            raise ValueError(f"media names one twice: {', '.join(self.media)}")
        if self.shard_windows % self.chunk_windows:
            raise ValueError(
                f"shard_windows ({self.shard_windows}) must be a multiple of chunk_windows ({self.chunk_windows})"
            )
        if self.max_document_len != "unlimited" and not 2 <= self.max_document_len <= MAX_COUNT:
            raise ValueError(
                f"max_document_len must be unlimited, or 2 to {MAX_COUNT} tokens; got {self.max_document_len}"
            )
        self.split_rule  # noqa: B018  raises for a malformed split
        return self

    @property
    def split_rule(self) -> SplitRule:
        """`split`, read."""
        return SplitRule.of(self.split)

    @property
    def validates_one_event(self) -> bool:
        """Whether validation asks for one event of a user, after its history, instead of all events of whole users."""
        return self.split_rule.kind != "users"

    @property
    def max_crop_len(self) -> int:
        """`max_document_len` as a number of tokens."""
        return 2**62 if self.max_document_len == "unlimited" else self.max_document_len


class AskedConfig(Frozen):
    """Which windows are read, and how they are masked."""

    mask_policy: MaskPolicy = Field(default="disjoint", description="How the masked objective masks.")
    split: SplitName = Field(default="training", description="Windows of training users or of validation users.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="The run's seed: order, masks and hidden times.")


class StreamConfig(AskedConfig):
    """What a `WindowStream` delivers. All fields but rank, world_size and threads are its identity."""

    objective: Objective
    batch_windows: int = Field(ge=1)  # windows of a global batch, over all ranks
    hidden_times: float = Field(default=0.1, ge=0, le=1)  # causal training: see WindowStream
    rank: int = Field(default=0, ge=0)
    world_size: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)  # background threads that decode and featurize

    @model_validator(mode="after")
    def _agree(self) -> "StreamConfig":
        if self.rank >= self.world_size:
            raise ValueError(f"rank ({self.rank}) must be below world_size ({self.world_size})")
        return self
