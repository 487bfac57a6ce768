"""`python -m mergesearch` and the `mergesearch` command."""

from mergesearch.cli.app import main

if __name__ == "__main__":
    main()
