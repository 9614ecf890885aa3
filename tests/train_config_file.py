"""A TOML file of the options of `train`, read as the command reads it."""

from pathlib import Path
from typing import Any

import streamfeat_cli.commands  # noqa: F401  declares the commands
from streamfeat_cli.declaration import COMMANDS


def read_config(path: Path) -> dict[str, Any]:
    return COMMANDS["train"].given(path, {})
