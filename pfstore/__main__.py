"""`python -m pfstore …` is `pfstore …`."""

from pfstore.cli import main

if __name__ == "__main__":
    main()
