"""The command line: options → config → one call → print. Nothing here is imported by the library.

A file for each command; `console.py` prints, `signals.py` hears Ctrl-C. The console script is `main`.
"""

from streamfeat_cli.commands import app, main

__all__ = ["app", "main"]
