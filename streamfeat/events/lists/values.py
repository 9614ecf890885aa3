"""Values of JSON as texts, and the parts of titles."""

from typing import Any


def at(value: Any, *keys: str) -> Any:
    """The value below `keys`, one after the other; None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(value: Any, *keys: str) -> str:
    """The text or the number below `keys` as text; empty for anything else."""
    found = at(value, *keys)
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return ""
    return found.strip() if isinstance(found, str) else str(found)


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of an array; none if it is no array."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def titled(name: str, year: str) -> str:
    """`name (year)`, the form of titles that are matched between sites; without a year the name."""
    year = year.strip().removesuffix(".0")
    return f"{name} ({year})" if name and year.isdecimal() and int(year) else name
