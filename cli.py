"""`python cli.py COMMAND …`: the command line without an installation."""

if __name__ == "__main__":  # build workers import this file, and need no command: that took each .06 CPU-s more
    from streamfeat_cli import main

    main()
