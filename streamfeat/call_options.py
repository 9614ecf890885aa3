"""Arguments of Python's calls: paths, and `**options` that are the fields of config models, which `help()` lists."""

import functools
import inspect
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from streamfeat.errors import ConfigError
from streamfeat.records import Frozen, unknown_key

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def given_path(name: str, path: str | PathLike[str]) -> Path:
    """The path given as the argument `name`. Raises ConfigError for "", which would be the current folder."""
    if not os.fspath(path):
        raise ConfigError(f"{name}: an empty path; name the file or the folder, '.' is the current one")
    return Path(path)


def takes_fields_of(*models: type[Frozen]) -> Callable[[FunctionT], FunctionT]:
    """Makes `help()` show a function's `**options` as keywords: one for each field of the models, with its type.

    A field that is itself one of the models is left out, because its own fields are shown. An unknown keyword raises a
    ConfigError that names the closest one.
    """

    def with_signature(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = {
            name: field
            for model in models
            for name, field in model.model_fields.items()
            if field.annotation not in models and name not in signature.parameters
        }
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.get_default(call_default_factory=True),
                annotation=_plain(field.annotation),
            )
            for name, field in fields.items()
        ]
        known = [parameter.name for parameter in (*named, *options) if parameter.name != "self"]

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            for name in given.keys() - known:
                raise ConfigError(unknown_key(function.__name__, name, name, known))
            return function(*args, **given)

        call.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return cast(FunctionT, call)

    return with_signature


def _plain(annotation: Any) -> Any:
    """A type without what `Annotated` adds to it or to its parts, such as validators."""
    return get_type_hints(type("Holder", (), {"__annotations__": {"it": annotation}}))["it"]
