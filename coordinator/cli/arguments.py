"""Arguments and options that several commands take, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from highnoon.coordinator.cli.store_access import study_names
from highnoon.shared.domain.errors import InvalidInput, Problem


def mistake(key: str, message: str, value: object = None, hint: str = "") -> InvalidInput:
    """One thing on the command line that cannot work."""
    return InvalidInput("command line", [Problem(key=key, message=message, value=value, hint=hint)])


StudyFile = Annotated[Path, typer.Argument(help="TOML, JSON or YAML.", metavar="STUDY_FILE")]
StudyName = Annotated[str, typer.Argument(help="The study's name.", metavar="STUDY", autocompletion=study_names)]
TrialNumber = Annotated[int, typer.Argument(help="The trial's number.", metavar="TRIAL")]
TrialsInAll = Annotated[
    int | None, typer.Option("--n-trials", help="Trials in all. Wins over the file's n_trials.", metavar="N")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
