"""The terminal as our command lines use it: text is literal, and breaks at words. Knows nothing of what is said."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

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
