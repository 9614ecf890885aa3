"""The command line: options → config → one call → print. Nothing here is imported by the library.

A file for each command; `console.py` prints, `signals.py` hears Ctrl-C. The console script is `main`.
"""

from streamfeat.trainer import load_trainer

load_trainer()  # before any `from train.… import …` below: `python -m streamfeat` looks in the working folder first

from streamfeat_cli.commands import app, main  # noqa: E402

__all__ = ["app", "main"]
