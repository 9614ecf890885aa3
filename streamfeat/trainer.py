"""Where `import train` leads: to the trainer that lies beside `streamfeat`, whatever else has this name.

`train.py` is what most people call a script of their own, and Python looks in the script's folder first. Whoever
imports from `train` calls `load_trainer` before.
"""

import importlib.util
import sys
from pathlib import Path

from streamfeat.errors import ConfigError

_HOME = Path(__file__).resolve().parents[1] / "train"


def load_trainer() -> None:
    """From now on `import train` gives streamfeat's trainer in this process; light, torch loads later.

    A script called `train.py` that runs as the main program stays what it is. Raises ConfigError where another module
    called `train` was imported before, or where the trainer is not installed.
    """
    loaded = sys.modules.get("train")
    if loaded is not None:
        _check_is_ours(getattr(loaded, "__file__", None))
        return
    spec = importlib.util.spec_from_file_location(
        "train", _HOME / "__init__.py", submodule_search_locations=[str(_HOME)]
    )
    if spec is None or spec.loader is None or not (_HOME / "__init__.py").exists():
        raise ConfigError(f"the trainer is not where it belongs, {_HOME}: install streamfeat again")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules["train"]
        raise


def _check_is_ours(file: str | None) -> None:
    if file is None or Path(file).resolve().parent != _HOME:
        raise ConfigError(
            f"a module called train was imported before, from {file or 'a plain folder'}, and streamfeat's "
            f"trainer ({_HOME}) has this name: rename that module, or run it as a program instead of importing it"
        )
