"""`python -m coordinator`: runs the command line and turns errors into messages and exit codes."""

from __future__ import annotations

import sys

from coordinator.cli import PROGRAM, app
from shared.errors import HighNoonError
from shared.exits import show

_ASKS_FOR_COMPLETION = {"--install-completion", "--show-completion"}


def main() -> None:
    """Never shows a traceback for what a person wrote, for a service that is away or for a disk that is full."""
    try:
        # A shell completes programs by their name, and `python -m coordinator` is none.
        app(prog_name=PROGRAM if _ASKS_FOR_COMPLETION & {*sys.argv} else None)
    except (HighNoonError, OSError) as error:
        sys.exit(show(error))


if __name__ == "__main__":
    main()
