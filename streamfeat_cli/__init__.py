"""The command line: options → config → one call → print. Nothing here is imported by the library.

A file for each command; `console.py` prints, `signals.py` hears Ctrl-C. The console script is `main`.
"""

from streamfeat.trainer import load_trainer

load_trainer()  # before any `from train.… import …` below: `python -m streamfeat` looks in the working folder first


def main() -> None:
    """The command line. Its commands are imported here: a build worker imports this package with the console script."""
    from streamfeat_cli import commands

    commands.main()
