"""The one way to read something back from a file: frozen pydantic records that refuse unknown keys."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from streamfeat.errors import ConfigError


class Frozen(BaseModel):
    """Base of every record that is read back from a file: immutable, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def is_recordable(path: str) -> bool:
    """Whether a record can hold a path: JSON has no other bytes than UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_SHOWN = 9  # complaints of one file

FrozenT = TypeVar("FrozenT", bound=Frozen)


def validated(model: type[FrozenT], values: dict[str, Any], where: str, *, strict: bool = False) -> FrozenT:
    """`model(**values)`, its complaints turned into one `ConfigError` that names `where` and the remedy.

    An unknown key is answered with the closest known one. `strict` takes no value of another type for one of its own.
    """
    try:
        return model.model_validate(values, strict=strict or None)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(model, where, e) for e in error.errors()[:_SHOWN])) from None


def unknown_key(where: str, name: str, key: str, known: Iterable[str]) -> str:
    """What to say of the key `key`, shown as `name`, that is none of the `known` ones: the closest of them, or all."""
    close = difflib.get_close_matches(key, sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"{where}: unknown key {name!r}; {hint}"


def _complaint(model: type[BaseModel], where: str, error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return unknown_key(where, name, name, model.model_fields)
    message = error["msg"].removeprefix("Value error, ")
    if not name:  # a rule over several fields: the message names them, and the input is all of them
        return f"{where}: {message}"
    return f"{where}: {name}: {message} (got {reprlib.repr(error['input'])})"
