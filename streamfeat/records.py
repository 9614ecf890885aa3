"""Reads records from JSON files, always in this way: frozen pydantic models that reject unknown keys."""

import difflib
import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from streamfeat.errors import ConfigError, DamagedError, FormatVersionError


class Frozen(BaseModel):
    """Base of every record that is read back from a file: immutable, rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # For a record with a format number: its key, and the highest number that this version reads.
    known_format: ClassVar[tuple[str, int] | None] = None


def is_recordable(path: str) -> bool:
    """Whether a record can hold a path: JSON can hold only UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_SHOWN = 9  # most errors of one file in a message

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_back(
    model: type[ModelT],
    data: bytes,
    where: str | Path,
    remedy: str,
    check: Callable[[dict[str, Any]], None] | None = None,
) -> ModelT:
    """The record in the file `where`, whose bytes are `data` (read by `store.files.read_below`).

    `check`, if given, gets the JSON values after their format was checked, and may remove some. Raises DamagedError,
    with `where` and `remedy`, if `data` is not such a record, FormatVersionError for a newer format.
    """
    values = parse_object(data, where, remedy)
    if check is not None:
        _refuse_newer(model, values, where)
        check(values)
    try:
        return validated(model, values, where)
    except ConfigError as error:
        raise DamagedError(f"{error}; {remedy}") from None


def parse_object(data: bytes, where: str | Path, remedy: str) -> dict[str, Any]:
    """The JSON object in `data`, in UTF-8.

    Otherwise raises DamagedError, with `where` and `remedy`: for other encodings, other JSON, too deep nesting, too
    long numbers, and half a surrogate pair (which text files and terminals cannot hold).
    """
    try:
        values = json.loads(data.decode("utf-8"))
        if b"\\u" in data:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where}: not readable as JSON ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise DamagedError(f"{where}: not readable: does not hold a JSON object; {remedy}")
    return values


def validated(model: type[ModelT], values: Any, where: str | Path, *, strict: bool = False) -> ModelT:
    """`model(**values)`, with its errors as one `ConfigError` that names `where` and the remedy.

    For an unknown key the error names the closest known one. With `strict`, values are not converted to another type.
    Raises FormatVersionError if the values have a newer format number.
    """
    _refuse_newer(model, values, where)
    try:
        return model.model_validate(values, strict=strict or None)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(model, where, e) for e in error.errors()[:_SHOWN])) from None


def _refuse_newer(model: type[BaseModel], values: Any, where: str | Path) -> None:
    if not issubclass(model, Frozen) or not isinstance(values, Mapping):
        return
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and name in values:  # a record inside says so of itself
            _refuse_newer(field.annotation, values[name], f"{where}: {name}")
    if model.known_format is None:
        return
    key, known = model.known_format
    found = values.get(key)
    if isinstance(found, int) and found > known:
        raise FormatVersionError(
            f"{where}: written in format {found}, but this streamfeat reads up to {known}; upgrade streamfeat"
        )


def unknown_key(where: str | Path, name: str, key: str, known: Iterable[str]) -> str:
    """The message for the unknown key `key`, shown as `name`. It names the closest of the `known` keys, or all."""
    close = difflib.get_close_matches(key, sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"{where}: unknown key {name!r}; {hint}"


def _complaint(model: type[BaseModel], where: str | Path, error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *path, key = error["loc"]
        return unknown_key(where, name, str(key), _known_keys(model, path))
    message = error["msg"].removeprefix("Value error, ")
    if not name:  # a rule about several fields: the message names them
        return f"{where}: {message}"
    return f"{where}: {name}: {message} (got {reprlib.repr(error['input'])})"


def _known_keys(kind: Any, path: Sequence[str | int]) -> set[str]:
    """The keys of the record at `path`, as pydantic gives it, in a value of the type `kind`."""
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        return _known_keys(arguments[0], path)
    if get_origin(kind) in (Union, UnionType):  # the path may say which of them it is
        own = [_known_keys(member, path[1:]) for member in arguments if path and _is_called(member, path[0])]
        return set().union(*own or [_known_keys(member, path) for member in arguments])
    if arguments:  # of a container: what it holds
        return set().union(*(_known_keys(inner, path[1:]) for inner in arguments))
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return set()
    inside = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if issubclass(kind, RootModel):
        return _known_keys(inside["root"], path)
    return _known_keys(inside.get(str(path[0])), path[1:]) if path else set(inside)


def _is_called(kind: Any, tag: str | int) -> bool:
    """Whether pydantic calls this member of a union so: by its discriminator's value, or by its name."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    return tag == kind.__name__ or any(tag in get_args(field.annotation) for field in kind.model_fields.values())
