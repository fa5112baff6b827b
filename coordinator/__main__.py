"""`python -m coordinator`: runs the command line and turns errors into messages and exit codes."""

from __future__ import annotations

import sys

from coordinator.cli import app
from shared.errors import HighNoonError
from shared.exits import show


def main() -> None:
    """Never shows a traceback for what a person wrote, for a service that is away or for a disk that is full."""
    try:
        app()
    except (HighNoonError, OSError) as error:
        sys.exit(show(error))


if __name__ == "__main__":
    main()
