"""Arguments and options that several commands take, and how commands answer: tables, JSON, sentences, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from highnoon.coordinator.cli.ledger_access import study_names
from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.json_safe import dumps
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.terminal import open_console, say

StudyFile = Annotated[Path, typer.Argument(help="TOML, JSON or YAML.", metavar="STUDY_FILE")]
StudyName = Annotated[str, typer.Argument(help="The study's name.", metavar="STUDY", autocompletion=study_names)]
TrialNumber = Annotated[int, typer.Argument(help="The trial's number.", metavar="TRIAL")]
TrialsInAll = Annotated[
    int | None, typer.Option("--n-trials", help="Trials in all. Wins over the file's n_trials.", metavar="N")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(value: object) -> None:
    """Strict JSON on stdout."""
    typer.echo(dumps(value, indent=2))


def print_table(lines: Sequence[str]) -> None:
    """Lines of a table, the first of them a heading."""
    console = open_console()
    for number, line in enumerate(lines):
        console.print(line, style=None if number else "bold", soft_wrap=True)


def print_sentence(text: str, *, stderr: bool = False) -> None:
    """A sentence, broken at words for a terminal."""
    say(open_console(stderr=stderr), text)


def no_result(why: str, *, next_step: str = "") -> typer.Exit:
    """Prints on stderr that there is nothing to show yet, and what to do; returns the exit code for it."""
    print_sentence(f"{why}; {next_step}" if next_step else why, stderr=True)
    return typer.Exit(Exit.NO_RESULT)


def mistake(key: str, message: str, value: object = None, hint: str = "") -> InvalidInput:
    """One thing on the command line that cannot work."""
    return InvalidInput("command line", [Problem(key=key, message=message, value=value, hint=hint)])
