"""`python -m streamfeat COMMAND …`: the command line, by the interpreter that is meant."""

if __name__ == "__main__":
    from streamfeat_cli import main

    main()
