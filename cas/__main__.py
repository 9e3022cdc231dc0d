"""`python -m cas`: the same as the command `cas`."""

from cas.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
