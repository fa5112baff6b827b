"""How our command lines end: exit codes by name, and what a person sees of an error. Decides nothing about errors."""

from __future__ import annotations

import textwrap
from enum import IntEnum

from rich.console import Console
from rich.text import Text

from shared.errors import UserInputError

_HANG = "    "


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
    """Ended by Ctrl-C or SIGTERM, in order."""


def show(error: Exception) -> Exit:
    """Prints an error to stderr, wrapped and in colour on a terminal only; returns the exit code that it means."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    lines = f"error: {error}".splitlines()
    if console.is_terminal:
        lines = [part for line in lines for part in _wrapped(line, console.width)]
    text = Text("\n".join(lines))
    text.stylize("bold red", 0, len("error:"))
    console.print(text, soft_wrap=True)
    return Exit.USER_INPUT if isinstance(error, UserInputError) else Exit.SERVICE


def _wrapped(line: str, width: int) -> list[str]:
    """With a hanging indent below the line's own; paths and values stay whole where they fit into a line."""
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line, width, subsequent_indent=indent + _HANG, break_long_words=False, break_on_hyphens=False
    ) or [""]
