"""`python -m coordinator`: runs the command line and turns errors into messages and exit codes."""

from __future__ import annotations

import sys

from coordinator.cli import app
from shared.errors import HighNoonError, UserInputError
from shared.exits import Exit


def main() -> None:
    """Never shows a traceback for what a person wrote or for a service that is away."""
    try:
        app()
    except UserInputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(Exit.USER_INPUT)
    except HighNoonError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(Exit.SERVICE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
