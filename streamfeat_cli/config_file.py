"""Reads TOML files of options, up to a size limit, and writes values as TOML."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamfeat.errors import ConfigError

_MOST_BYTES = 2**20


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises ConfigError if it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{path}: is longer than {_MOST_BYTES:,} bytes; a configuration is shorter")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number or nesting too large for Python
        raise ConfigError(f"{path}: is not valid TOML ({error})") from None


def toml_text(value: Any) -> str:
    """The TOML text of a value: a text, a number, a truth value, a path, or a list or table of these."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (f"{toml_text(key)} = {toml_text(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    return "".join(
        char if char.isprintable() else _escaped(char) for char in json.dumps(str(value), ensure_ascii=False)
    )


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 2**16 else f"\\U{ord(char):08x}"
