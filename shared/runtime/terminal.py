"""The terminal as our command lines use it: text is literal, and breaks at words; exit codes have names.

Decides nothing about errors: `show` prints one, and returns the exit code for it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from enum import IntEnum

from rich.console import Console
from rich.text import Text

from highnoon.shared.domain.errors import UserInputError

Say = Callable[[str], None]
"""Prints one line for people."""

_HANG = "    "


def open_console(*, stderr: bool = False) -> Console:
    """A console that takes names and messages as they are: no markup, no emoji, no colours of its own choice."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(console: Console, text: str, *, style: str | None = None) -> None:
    """Prints lines as `fitted` makes them, in colour on a terminal only."""
    for line in fitted(text, console):
        console.print(line, style=style, soft_wrap=True)


def say_row(console: Console, name: str, value: str) -> None:
    """A name in bold and what belongs to it, on one line however long, so that it can be copied."""
    console.print(Text.assemble((f"{name:10}", "bold"), " ", value), soft_wrap=True)


def fitted(text: str, console: Console, *, hang: str = _HANG) -> list[str]:
    """Broken at words for a terminal, with a hanging indent below each line's own; a pipe gets lines as they are."""
    if not console.is_terminal:
        return text.splitlines()
    return [part for line in text.splitlines() for part in _wrapped(line, console.width, hang)]


def _wrapped(line: str, width: int, hang: str) -> list[str]:
    """Paths and values stay whole where they fit into a line."""
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line, width, subsequent_indent=indent + hang, break_long_words=False, break_on_hyphens=False
    ) or [""]


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
    """A worker's pool cannot work: a preload fails, or it dies again and again."""
    INTERRUPTED = 130
    """Ended by Ctrl-C, by SIGTERM during a run or a wait, or by a callback during a wait."""


def show(error: Exception) -> Exit:
    """Prints an error to stderr as one that a person can act on; returns the exit code that it means."""
    console = open_console(stderr=True)
    text = Text("\n".join(fitted(f"error: {error}", console)))
    text.stylize("bold red", 0, len("error:"))
    console.print(text, soft_wrap=True)
    return Exit.USER_INPUT if isinstance(error, UserInputError) else Exit.SERVICE
