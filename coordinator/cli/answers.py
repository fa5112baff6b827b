"""What several commands do with their answer: print it, or refuse what a study's state does not allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.terminal import open_console, say

if TYPE_CHECKING:
    from highnoon.shared.store.studies import StudyRecord


def print_json(value: object) -> None:
    """Strict JSON on stdout."""
    from highnoon.coordinator.cli.report import as_json

    typer.echo(as_json(value))


def print_table(lines: Sequence[str]) -> None:
    """Lines that fit together, the first of them a heading."""
    console = open_console()
    for number, line in enumerate(lines):
        console.print(line, style=None if number else "bold", soft_wrap=True)


def tell(text: str, *, stderr: bool = False) -> None:
    """A sentence, broken at words for a terminal."""
    say(open_console(stderr=stderr), text)


def no_result(why: str, *, next_step: str = "") -> typer.Exit:
    """Says on stderr that there is nothing to show yet, and what to do; the exit code that means it."""
    tell(f"{why}; {next_step}" if next_step else why, stderr=True)
    return typer.Exit(Exit.NO_RESULT)


def require(done: bool, record: StudyRecord, why_not: str) -> None:
    """Raises StudyConflict unless the study's state allowed it."""
    from highnoon.shared.domain.errors import StudyConflict

    if not done:
        raise StudyConflict(f"study {record.name!r} is {record.state}: {why_not}")
