"""The commands of `cli.py`: options → config → one call → print. Nothing here is imported by the library."""
