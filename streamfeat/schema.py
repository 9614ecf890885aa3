"""The table of token fields: names, dtypes, special tokens and how values are stored.

All other modules (store, kernels, stream, model) take shapes, dtypes and pads from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamfeat.records import Frozen

FORMAT_VERSION = 2

FIELD_NAMES = ("item", "user", "position", "time", "rating", "status", "completion")
EVENT_FIELDS = ("item", "time", "rating", "status", "completion")  # the columns of histories.zarr

STATUSES = ("planned", "watching", "completed", "on_hold", "dropped")
PLANNED = 0
COMPLETED = 2

NO_VALUE = 255  # the uint8 code of a missing rating or completion


class SpecialTokens(NamedTuple):
    """The four special values of an integer field. They follow its n ordinary values."""

    cls: int
    pad: int
    mask: int
    empty: int


def special_tokens(num_values: int) -> SpecialTokens:
    """CLS, PAD, MASK and EMPTY of an integer field of `num_values` values: n, n+1, n+2, n+3."""
    return SpecialTokens(num_values, num_values + 1, num_values + 2, num_values + 3)


class FloatCode(Frozen):
    """How a float column is stored: as uint8 codes if these are exact for all its values, otherwise as float32.

    A code c means c · scale_factor; 255 means missing. This is the CF convention, which xarray decodes by itself.
    """

    dtype: Literal["uint8", "float32"]
    scale_factor: float = 1.0

    @classmethod
    def of_levels(cls, levels: Sequence[float] | None) -> "FloatCode":
        """The code for the distinct values `levels` (finite, float32); None means that there are too many."""
        if levels is not None:
            values = np.asarray(levels, np.float32)
            for scale in (1.0, 0.5, 0.25, 0.2, 0.1, 0.125, 0.05, 0.01):
                codes = np.rint(values.astype(np.float64) / scale)
                # Must be exact in float32 and in float64: readers of CF attributes use one or the other.
                exact32 = codes.astype(np.float32) * np.float32(scale) == values
                exact64 = (codes * scale).astype(np.float32) == values
                if np.all(exact32 & exact64 & (codes >= 0) & (codes < NO_VALUE)):
                    return cls(dtype="uint8", scale_factor=scale)
        return cls(dtype="float32")

    def encode(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """The stored form of values (NaN if missing)."""
        if self.dtype == "float32":
            return values
        codes = np.full(values.shape, NO_VALUE, np.uint8)
        known = ~np.isnan(values)
        codes[known] = np.rint(values[known].astype(np.float64) / self.scale_factor)
        return codes

    def decode_table(self) -> NDArray[np.float32]:
        """(256,) float32: the value of each uint8 code, NaN for missing."""
        table = (np.arange(256) * self.scale_factor).astype(np.float32)
        table[NO_VALUE] = np.nan
        return table

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored values as float32, NaN if missing."""
        return self.decode_table()[stored] if self.dtype == "uint8" else stored.astype(np.float32)

    @property
    def missing(self) -> float | int:
        """The stored value that means missing."""
        return NO_VALUE if self.dtype == "uint8" else float("nan")

    def attributes(self) -> dict[str, Any]:
        """CF attributes of an array stored with this code."""
        if self.dtype == "float32":
            return {}
        return {"scale_factor": self.scale_factor, "_FillValue": NO_VALUE}


@dataclass(frozen=True)
class TokenField:
    """One named column of the tokens, as stored."""

    name: str
    dtype: np.dtype[Any]
    cls: float | int  # stored value of a CLS token; but in `user` a CLS token has the user's id
    pad: float | int  # stored value of a PAD token, and the array's fill value
    attributes: dict[str, Any]


class Schema(Frozen):
    """The description of a dataset's arrays. It is enough to read them."""

    media: tuple[str, ...]
    medium_offsets: tuple[int, ...]  # items of medium m are medium_offsets[m] .. medium_offsets[m + 1] - 1
    num_users: int
    window_len: int
    time_dtype: Literal["uint32", "int64"]  # seconds since time_origin
    time_origin: int  # Unix seconds of the earliest kept event
    rating: FloatCode
    completion: FloatCode
    rating_max: float  # largest rating of a kept event; 0 without ratings

    @property
    def num_items(self) -> int:
        """V: items over all media."""
        return self.medium_offsets[-1]

    @property
    def item_tokens(self) -> SpecialTokens:
        return special_tokens(self.num_items)

    @property
    def user_tokens(self) -> SpecialTokens:
        return special_tokens(self.num_users)

    @property
    def position_tokens(self) -> SpecialTokens:
        return special_tokens(self.window_len)

    @property
    def status_tokens(self) -> SpecialTokens:
        return special_tokens(len(STATUSES))

    @property
    def medium_tokens(self) -> SpecialTokens:
        return special_tokens(len(self.media))

    def attributes(self) -> dict[str, Any]:
        """The attributes of a Zarr group: the ids of each medium, the sizes, and the origin of times."""
        return {
            "media": list(self.media),
            "medium_offsets": list(self.medium_offsets),
            "num_items": self.num_items,
            "num_users": self.num_users,
            "window_len": self.window_len,
            "time_origin_unix_seconds": self.time_origin,
        }

    def token_fields(self) -> tuple[TokenField, ...]:
        """The stored fields in order. Each is an array of `windows.zarr`."""
        item, user, position, status = self.item_tokens, self.user_tokens, self.position_tokens, self.status_tokens
        return (
            _integer(
                "item",
                "uint16" if self.num_items + 4 < 2**16 else "uint32",
                item,
                "dense item id over all media; medium m holds medium_offsets[m] to medium_offsets[m+1]-1",
            ),
            _integer("user", "uint32", user, "dense user id; a CLS token has its user's"),
            _integer(
                "position",
                "uint16" if self.window_len + 4 < 2**16 else "uint32",
                position,
                "place of the event in its history, modulo window_len",
            ),
            TokenField(
                "time",
                np.dtype(self.time_dtype),
                0,
                0,
                {
                    "long_name": "seconds since time_origin; 0 on special tokens",
                    "time_origin_unix_seconds": self.time_origin,
                },
            ),
            _float("rating", self.rating, "rating as given"),
            _integer(
                "status",
                "uint8",
                status,
                "0 planned, 1 watching, 2 completed, 3 on_hold, 4 dropped",
                {
                    "flag_values": list(range(len(STATUSES))),
                    "flag_meanings": " ".join(STATUSES),
                },
            ),
            _float("completion", self.completion, "share of the item that was finished, 0 to 1"),
        )

    def field(self, name: str) -> TokenField:
        """The stored field called `name`."""
        return next(field for field in self.token_fields() if field.name == name)


def _integer(
    name: str, dtype: DTypeLike, tokens: SpecialTokens, long_name: str, more: dict[str, Any] | None = None
) -> TokenField:
    attributes: dict[str, Any] = {"long_name": long_name, "pad_value": tokens.pad, **(more or {})}
    if name != "user":
        attributes["cls_value"] = tokens.cls
    return TokenField(name, np.dtype(dtype), tokens.cls, tokens.pad, attributes)


def _float(name: str, code: FloatCode, long_name: str) -> TokenField:
    return TokenField(
        name, np.dtype(code.dtype), code.missing, code.missing, {"long_name": long_name, **code.attributes()}
    )
