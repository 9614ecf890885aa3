"""Makes the options of a command from a config model. Each option is declared once, as a field of the model.

The command's signature and help, the keys of a TOML file and the answer to an unknown key all follow from the field.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
import typer
from pydantic import BeforeValidator, Field, create_model
from pydantic.fields import FieldInfo

from streamfeat.config import Option
from streamfeat.errors import ConfigError
from streamfeat.records import Frozen, unknown_key, validated

# A TOML file gives a path as text.
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)]

_LARGE = 2**31  # a larger bound only protects arithmetic, so it is not shown
_TYPES: dict[type, str] = {int: "INTEGER", float: "NUMBER", bool: "true|false", Path: "PATH"}


class Options:
    """The options of one command: the fields of `model`, and those of a model that is one of its fields.

    `make(given, where)` makes the model from the given options and raises ConfigError. Default: the options are the
    fields. `merge(file, typed)` joins the options of a file and the typed ones. Default: a typed option replaces the
    one of the same name.
    """

    def __init__(
        self,
        model: type[Frozen],
        make: Callable[..., Frozen] | None = None,
        merge: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.model = model
        self.make: Callable[..., Frozen] = make or partial(validated, model)
        self.merge = merge or (lambda file, typed: {**file, **typed})
        self.fields: dict[str, FieldInfo] = {}  # the model's own before those that it inherits
        self.tables: dict[str, type[Frozen]] = {}  # models within the model, by the name of their field
        for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] not in model.__annotations__):
            if isinstance(field.annotation, type) and issubclass(field.annotation, Frozen):
                self.tables[name] = field.annotation
                self.fields |= field.annotation.model_fields
            else:
                self.fields[name] = field

    def parameters(self) -> list[inspect.Parameter]:
        """One parameter for each option, for typer. A value is a text, or None if the option was not typed."""
        return [parameter(name, field) for name, field in self.fields.items()]

    def parsed(self, typed: Mapping[str, Any], command: str) -> dict[str, Any]:
        """The typed options as values of their fields. Raises ConfigError, which names the option as it is typed."""
        values = {name: value for name, value in typed.items() if value is not None}
        found = validated(self._typed, {spelled(name): value for name, value in values.items()}, command)
        return {name: getattr(found, name) for name in values}

    def from_tables(self, where: str, values: dict[str, Any], command: str, once: Mapping[str, str]) -> dict[str, Any]:
        """The options in a TOML document: as plain keys, below [`command`], or below the name of a model's field.

        Raises ConfigError, which names the document `where`, for an unknown key or an invalid value. `once` are the
        options that can only be typed, because they are meant for a single call: name → spelling.
        """
        for table in (command, *self.tables):
            within = values.pop(table, {})
            known = self.tables[table].model_fields if table in self.tables else [*self.fields, *self.tables, *once]
            if not isinstance(within, dict):
                raise ConfigError(f"{where}: {table}: is a table, [{table}], of {', '.join(known)}")
            for key in within.keys() - set(known):
                raise ConfigError(unknown_key(where, f"{table}.{key}", key, known))
            if twice := values.keys() & within.keys():
                raise ConfigError(f"{where}: {min(twice)}: is given twice, plain and below [{table}]; keep one")
            values |= within
        if wrong := values.keys() & once.keys():
            name = min(wrong)
            raise ConfigError(f"{where}: {name!r} says what to do this once, so it is typed: {once[name]}")
        found = validated(self._written, values, where, strict=True)
        given = {name: getattr(found, name) for name in values}
        self.make(given, where)
        return given

    def in_force(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The value of every option if these are `given`. Raises ConfigError."""
        flat = self.make(dict(given), where).model_dump()
        for table in self.tables:
            flat |= flat.pop(table)
        return {name: flat[name] for name in self.fields}

    @cached_property
    def _typed(self) -> type[Frozen]:
        return _alone(self.fields, spelled)

    @cached_property
    def _written(self) -> type[Frozen]:
        return _alone(self.fields, str)


def _alone(fields: Mapping[str, FieldInfo], alias: Callable[[str], str]) -> type[Frozen]:
    """A model that checks each field alone. Every field is optional, and rules about several fields are not checked."""
    optional: dict[str, Any] = {
        name: (_annotated(field), Field(default=None, alias=alias(name))) for name, field in fields.items()
    }
    return create_model("Options", __base__=Frozen, **optional)


def _annotated(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def spelled(name: str) -> str:
    """The option of a field: `--window-len` for `window_len`."""
    return "--" + name.replace("_", "-")


def described(field: FieldInfo) -> Option:
    """The `Option`s in the field's annotation, joined into one."""
    said = [option for option in field.metadata if isinstance(option, Option)]
    return Option(**{key: value for option in said for key, value in vars(option).items() if value})


def parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """The parameter of a field, as typer reads it from a signature."""
    option, is_flag = described(field), field.annotation is bool
    flags = option.flags or ((f"{spelled(name)}/--no-{name.replace('_', '-')}",) if is_flag else (spelled(name),))
    metavar = "" if is_flag else type_text(field)
    info = typer.Option(*flags, help=help_text(field), rich_help_panel=option.panel or None, metavar=metavar)
    kind: Any = bool if is_flag else list[str] if option.repeated else str
    type_: Any = Annotated[kind | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=type_)


def help_text(field: FieldInfo) -> str:
    """Description, default and bounds in one line, without brackets, which rich would read as markup."""
    default = default_text(field)
    facts = "; ".join([*([f"default {default}"] if default else []), *bounds_text(field)])
    return f"{field.description} ({facts})" if facts else str(field.description)


def default_text(field: FieldInfo) -> str:
    """The default as it is typed; empty if there is none."""
    if text := described(field).default:
        return text
    default = field.get_default(call_default_factory=True)
    if field.annotation is bool:
        return "yes" if default else "no"
    return "" if default is None or field.is_required() else str(default)


def bounds_text(field: FieldInfo) -> list[str]:
    """The smallest and largest value, without bounds that only protect arithmetic."""
    rules = [rule for rule in field.metadata if isinstance(rule, annotated_types.BaseMetadata)]
    bounds = {key: getattr(rule, key) for key in ("ge", "gt", "le", "lt") for rule in rules if hasattr(rule, key)}
    bounds = {key: bound for key, bound in bounds.items() if bound < _LARGE}
    if {"ge", "le"} <= bounds.keys():
        return [f"{bounds['ge']:,} to {bounds['le']:,}"]
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return [f"{words[key]} {bound:,}" for key, bound in bounds.items()]


def type_text(field: FieldInfo) -> str:
    """How a value is written: `INTEGER`, `causal|masked`."""
    return described(field).metavar or _type_text(field.annotation)


def _type_text(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if isinstance(annotation, type):
        return _TYPES.get(annotation, "TEXT")
    return "|".join(_type_text(part) for part in get_args(annotation) if part is not type(None))
