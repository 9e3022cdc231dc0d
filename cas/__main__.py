"""The command `cas`, and `python -m cas`: its version at once; all else is for the command line."""

from __future__ import annotations

import sys

from cas import __version__


def main() -> int:
    """Run cas with the process's arguments; gives the exit code."""
    if sys.argv[1:] == ["--version"] and _said(f"cas {__version__}\n"):
        return 0
    from cas.cli import main as command_line  # its click takes longer to load than Python to start

    return command_line()


def _said(text: str) -> bool:
    """Whether standard output took it; what it may be instead of one that does, the command line knows."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (AttributeError, OSError):  # closed from the beginning, or by whoever read it
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
