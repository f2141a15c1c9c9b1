"""Runs pfstore from a checkout: `python cli.py …` is `pfstore …`."""

from pfstore.cli import main

if __name__ == "__main__":
    main()
