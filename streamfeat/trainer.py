"""Makes `import train` import the trainer next to `streamfeat`, even if another module has this name.

Many people call their own script `train.py`, and Python searches the script's folder first. Call `load_trainer` before
any import from `train`.
"""

import importlib.util
import sys
from pathlib import Path

from streamfeat.errors import ConfigError

_HOME = Path(__file__).resolve().parents[1] / "train"


def load_trainer() -> None:
    """Makes `import train` give streamfeat's trainer in this process. Fast: torch is not imported yet.

    A script called `train.py` that runs as the main program is not affected. Raises ConfigError if another module
    called `train` was imported before, or if the trainer is not installed.
    """
    loaded = sys.modules.get("train")
    if loaded is not None:
        _check_is_ours(getattr(loaded, "__file__", None))
        return
    spec = importlib.util.spec_from_file_location(
        "train", _HOME / "__init__.py", submodule_search_locations=[str(_HOME)]
    )
    if spec is None or spec.loader is None or not (_HOME / "__init__.py").exists():
        raise ConfigError(f"the trainer is not in its folder, {_HOME}: install streamfeat again")
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
            f"a module called train was imported before, from {file or 'a plain folder'}, but streamfeat's trainer "
            f"({_HOME}) has this name, too: rename that module, or run it as a program instead of importing it"
        )
