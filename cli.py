"""`python cli.py COMMAND …`: the command line without an installation."""

from streamfeat_cli import main

if __name__ == "__main__":
    main()
