"""Numbers that are written with a decimal comma, as spreadsheets of many countries write them."""

import re
from collections.abc import Mapping, Sequence

from streamfeat.events.column_values import NO_NUMBER

_ROLES_OF_NUMBERS = ("timestamp", "rating", "completion")

_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")
_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}(,\d{3})+\s*")


def roles_with_decimal_commas(values: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The roles of numbers whose sampled values, by role, have decimal commas."""
    return tuple(role for role in _ROLES_OF_NUMBERS if has_decimal_commas(values.get(role, ())))


def has_decimal_commas(values: Sequence[str]) -> bool:
    """Whether the commas in sampled numbers are decimal commas.

    They are if, apart from words for no number such as n.a., every value with a comma is a number with one comma, no
    value has a point, and not all of them could have been written with commas between thousands, as 1,500 is.
    """
    values = [value for value in values if value.strip().lower() not in NO_NUMBER]
    with_comma = [value for value in values if "," in value]
    return (
        bool(with_comma)
        and all(_COMMA.fullmatch(value) for value in with_comma)
        and not any("." in value for value in values)
        and not all(_THOUSANDS.fullmatch(value) for value in with_comma)
    )
