"""What a build and a stream are asked to do: frozen, self-checking, refused where a key is unknown."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from streamfeat.errors import ConfigError
from streamfeat.records import Frozen
from streamfeat.schema import FIELD_NAMES

MAX_COUNT = 2**48  # of anything counted: keeps products with a window's or a row's length below 2^63
MOST_WORKERS = 1024
MEDIUM_NAME = re.compile(r"[a-z0-9_]{1,32}")


def check_medium_name(name: str) -> str:
    """`name` lower-cased; a ValueError where it cannot name a medium."""
    name = name.lower()
    if not MEDIUM_NAME.fullmatch(name):
        raise ValueError(f"a medium's name matches [a-z0-9_]{{1,32}} after lower-casing; {name!r} does not")
    if name in FIELD_NAMES:
        raise ValueError(f"{name!r} is the name of a token field and cannot name a medium")
    return name


def check_workers(workers: int) -> None:
    """Raise ConfigError for a number of worker processes that cannot be, or that no machine bears."""
    if not 1 <= workers <= MOST_WORKERS:
        raise ConfigError(f"workers: {workers} processes cannot share the work; give 1 to {MOST_WORKERS:,}")


MediumName = Annotated[str, BeforeValidator(check_medium_name)]
Size = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Compression = Literal["lz4", "zstd", "none"]
Objective = Literal["causal", "masked"]
MaskPolicy = Literal["disjoint", "seed"]
SplitName = Literal["training", "validation"]
TimeUnit = Literal["auto", "s", "ms", "us", "ns"]


class BuildConfig(Frozen):
    """Everything that decides a dataset's bytes, and `packings`, which only says how many to make."""

    format: str = "auto"  # how event files are read; "auto" recognises each one
    # role → column of the file; roles not named are found by synonyms
    columns: dict[str, str] = Field(default_factory=dict)
    time_unit: TimeUnit = "auto"  # unit of numeric timestamps
    media: tuple[MediumName, ...] = ()  # order and selection; empty: all found, sorted
    keep_planned: bool = True  # planned events stay as input (never as targets)
    min_item_events: Size = 1  # items with fewer events are dropped, once, before users
    min_user_events: Size = 1  # users with fewer events are dropped, once, after items
    max_rejected: float = Field(default=0.01, ge=0, le=1)  # share of bad rows above which a build stops
    split: str = "users:0.01"  # how validation is held out: users:F or last:2
    window_len: int = Field(default=1024, ge=2, le=2**20)  # tokens of a window
    max_document_len: int | Literal["unlimited"] = "unlimited"  # longest crop of a history, CLS included
    chunk_windows: Size = 64  # windows of a Zarr chunk, halved while training has < 96
    shard_windows: Size = 2048  # windows of a Zarr shard, at most
    compression: Compression = "lz4"
    seed: int = Field(default=20221221, ge=0, lt=2**63)  # split, partitions, crops, packings
    packings: int = Field(default=1, ge=0, le=100_000)  # of training; 0: none, for live training alone

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
        if not self.holds_out_last:
            self.validation_share  # noqa: B018  a malformed split is refused here
        return self

    @property
    def holds_out_last(self) -> bool:
        """Whether the last two events with an item target of every user are held out, not whole users."""
        return self.split == "last:2"

    @property
    def validation_share(self) -> float:
        """F of `users:F`, the share of users held out for validation."""
        kind, _, value = self.split.partition(":")
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if kind != "users" or not 0 < share < 1:
            raise ValueError(
                f"split must be last:2, or users:F with 0 < F < 1, for instance users:0.01; got {self.split!r}"
            )
        return share

    @property
    def max_crop_len(self) -> int:
        """`max_document_len` as a number of tokens."""
        return 2**62 if self.max_document_len == "unlimited" else self.max_document_len


class StreamConfig(Frozen):
    """What a `WindowStream` delivers; everything but rank, world size and threads is its identity."""

    objective: Objective
    mask_policy: MaskPolicy = "disjoint"  # masked objective only
    batch_windows: int = Field(ge=1)  # windows of a global batch, over all ranks
    seed: int = Field(default=0, ge=0, lt=2**63)  # the run's seed: order and masks
    split: SplitName = "training"
    rank: int = Field(default=0, ge=0)
    world_size: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)  # background threads that decode and featurize

    @model_validator(mode="after")
    def _agree(self) -> "StreamConfig":
        if self.rank >= self.world_size:
            raise ValueError(f"rank ({self.rank}) must be below world_size ({self.world_size})")
        return self
