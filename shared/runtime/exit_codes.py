"""How our command lines end: exit codes by name, and what a person sees of an error. Decides nothing about errors."""

from __future__ import annotations

from enum import IntEnum

from rich.text import Text

from highnoon.shared.domain.errors import UserInputError
from highnoon.shared.runtime.terminal import fitted, open_console


class Exit(IntEnum):
    """What a calling program may rely on; docs/cli.md has the table."""

    OK = 0
    """Done; for a study: it is finished and has a best trial."""
    NO_RESULT = 1
    """The study is over without a completed trial, or was cancelled."""
    USER_INPUT = 2
    """A mistake in what a person wrote; the message names key, value and the nearest valid choice."""
    SERVICE = 3
    """An outside service is away or does not fit; `coordinator doctor` explains."""
    POOL_BROKEN = 4
    """A worker's pool cannot live: a preload fails, or it dies again and again."""
    INTERRUPTED = 130
    """Ended by Ctrl-C or SIGTERM, in order, or by a callback during a wait."""


def show(error: Exception) -> Exit:
    """Prints an error to stderr as one that a person can act on; returns the exit code that it means."""
    console = open_console(stderr=True)
    text = Text("\n".join(fitted(f"error: {error}", console)))
    text.stylize("bold red", 0, len("error:"))
    console.print(text, soft_wrap=True)
    return Exit.USER_INPUT if isinstance(error, UserInputError) else Exit.SERVICE
