"""`python -m streamfeat COMMAND …`: the command line, run by this Python."""

if __name__ == "__main__":
    from streamfeat_cli import main

    main()
