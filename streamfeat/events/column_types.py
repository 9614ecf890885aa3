"""Arrow columns of any type as text, integers or floats, which are what the casts accept."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamfeat.events.casts import Kind
from streamfeat.events.encodings import is_utf8
from streamfeat.events.source import ID_ROLES
from streamfeat.events.time_forms import MIDNIGHT

LABEL_ROLES = ("medium", "status")  # text of few distinct values
NUMBER_ROLES = ("rating", "completion")
_FIRST_ROUNDED = {16: 2**11, 32: 2**24, 64: 2**53}  # by bits: from here on, floats skip integers
# Types that are not text, numbers or times. A duration would be read as a number of an unknown unit.
_UNFIT = (
    pa.types.is_nested,
    pa.types.is_duration,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_UUID_BYTES = 16
_UUID_DIGITS = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])  # places of digits in a UUID's text
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def column_kind(kind: pa.DataType) -> Kind:
    """The kind, for the casts, of a column of `read_row_groups`."""
    if pa.types.is_unsigned_integer(kind):
        return "unsigned"
    if pa.types.is_integer(kind):
        return "integer"
    return "floating" if pa.types.is_floating(kind) else "text"


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves, without dictionary and extension type."""
    while True:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def is_unfit_type(kind: pa.DataType) -> bool:
    return any(is_unfit(stored_type(kind)) for is_unfit in _UNFIT) and not _is_uuid(kind)


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def plain_column(column: pa.Array, role: str) -> pa.Array:
    """The column as text, integers or floats; timestamps as their stored integers."""
    kind = column.type
    if _is_uuid(kind):
        return _uuid_texts(column.storage)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_column(column.storage, role)
    if pa.types.is_dictionary(kind):
        if role in LABEL_ROLES and _holds_utf8(column.dictionary):
            return column.cast(pa.dictionary(pa.int32(), pa.string()))
        return plain_column(column.dictionary_decode(), role)
    if role == "timestamp" and pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    if role == "timestamp" and pa.types.is_timestamp(column.type):
        return column.view(pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column
    if pa.types.is_boolean(kind) and role in NUMBER_ROLES:
        return column.cast(pa.int8())
    if role in ID_ROLES and pa.types.is_floating(kind):
        return _whole_ids(column)
    if role in ID_ROLES and pa.types.is_decimal(kind):
        return pc.replace_substring_regex(column.cast(pa.string()), r"\.0+$", "")
    if pa.types.is_floating(kind):
        return column.cast(pa.float32()) if pa.types.is_float16(kind) else column
    return column.cast(pa.string())


def sampled_texts(column: pa.Array) -> list[str]:
    """The values of a column of text, numbers or times as text, empty where missing; invalid bytes are replaced."""
    stored = stored_type(column.type)
    is_time = pa.types.is_timestamp(stored) or pa.types.is_date(stored)
    if not is_time:
        column = plain_column(column, "rating" if pa.types.is_boolean(stored) else "")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_time or column_kind(column.type) != "text":
        column = column.cast(pa.string())
    column = column.cast(pa.large_binary())
    return ["" if value is None else value.decode("utf-8", "replace") for value in column.to_pylist()]


class RoundedIdsError(Exception):
    """Ids are floats from which digits may be missing. The text is one of them."""


def _whole_ids(column: pa.Array) -> pa.Array:
    """Ids of a column of floats as integers, or as text if some have a fraction; NaN is null.

    Raises RoundedIdsError for numbers so large that the type skips integers.
    """
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # null is NaN
    known = ~np.isnan(values)
    rounded = values[np.abs(values, where=known, out=np.zeros_like(values)) >= _FIRST_ROUNDED[column.type.bit_width]]
    if len(rounded):
        raise RoundedIdsError(repr(float(rounded[0])))
    whole = values == np.floor(values)
    numbers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~known)
    if whole[known].all():
        return numbers
    return pc.if_else(pa.array(whole), numbers.cast(pa.string()), pa.array(values, mask=~known).cast(pa.string()))


def _uuid_texts(stored: pa.Array) -> pa.Array:
    """UUIDs, 16 bytes each, as their usual text: lower-case hexadecimal digits in five groups."""
    first = stored.offset * _UUID_BYTES
    size = len(stored) * _UUID_BYTES
    values = np.frombuffer(stored.buffers()[1], np.uint8, size, first).reshape(-1, _UUID_BYTES)
    texts = np.full((len(stored), 36), ord("-"), np.uint8)
    texts[:, _UUID_DIGITS[::2]] = _HEX[values >> 4]
    texts[:, _UUID_DIGITS[1::2]] = _HEX[values & 15]
    ends = np.arange(0, texts.size + 1, 36, dtype=np.int64)
    array = pa.Array.from_buffers(pa.large_string(), len(stored), [None, pa.py_buffer(ends), pa.py_buffer(texts)])
    return pc.if_else(stored.is_valid(), array, pa.scalar(None, pa.large_string()))


def joined_times(columns: Sequence[pa.Array]) -> pa.Array:
    """The text of times whose date and time of day are in several columns; null without the first."""
    first, *others = (column.cast(pa.string()) for column in columns)
    date = pc.replace_substring_regex(first, MIDNIGHT, "")
    joined = pc.binary_join_element_wise(
        date.fill_null(""), *others, pa.scalar(" "), null_handling="replace", null_replacement=""
    )
    return pc.if_else(first.is_valid(), joined, pa.scalar(None, pa.string()))


def invalid_utf8_rows(table: pa.Table, roles: Sequence[str]) -> NDArray[np.int64]:
    """Rows with text that is not UTF-8 in one of `roles`. Parquet declares UTF-8, but writers may not obey."""
    bad: set[int] = set()
    for role in roles:
        column = table.column(role)
        if not _holds_utf8(column):
            binary = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
            bad.update(i for i, value in enumerate(binary.to_pylist()) if value is not None and not is_utf8(value))
    return np.array(sorted(bad), np.int64)


def _holds_utf8(column: pa.Array | pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
