"""Arguments of Python's calls: paths, and `**options` that are the fields of config models, which `help()` lists."""

import inspect
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from streamfeat.errors import ConfigError
from streamfeat.records import Frozen

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def given_path(name: str, path: str | PathLike[str]) -> Path:
    """The path given as the argument `name`. Raises ConfigError for "", which would be the current folder."""
    if not os.fspath(path):
        raise ConfigError(f"{name}: an empty path; name the file or the folder, '.' is the current one")
    return Path(path)


def takes_fields_of(*models: type[Frozen]) -> Callable[[FunctionT], FunctionT]:
    """Makes `help()` show a function's `**options` as keywords: one for each field of the models, with its type.

    A field that is itself one of the models is left out, because its own fields are shown. The function's behaviour
    does not change.
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
                annotation=field.annotation,
            )
            for name, field in fields.items()
        ]
        function.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return function

    return with_signature
