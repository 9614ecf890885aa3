"""The command line: options → config → one call → print. Nothing here is imported by the library.

Each command has a file. `console.py` prints, `signals.py` handles Ctrl-C. The console script calls `main`.
"""

from streamfeat.trainer import load_trainer

load_trainer()  # before any `from train.… import …`: `python -m streamfeat` searches the working folder first


def main() -> None:
    """Runs the command line. Imports the commands only here, because a build worker also imports this package."""
    from streamfeat_cli import commands

    commands.main()
