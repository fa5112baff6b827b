"""What all commands share: the ledger, arguments and options, and how they answer (tables, JSON, sentences, refusals).

Owns the choice between a cluster's database and the embedded one, opened for one command. Imports the database only
where it is used: `--help` and a shell's completion must be fast.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.tables import near
from highnoon.shared.domain.errors import ABSENT, HighNoonError, InvalidInput, ServiceUnavailable
from highnoon.shared.runtime.terminal import Exit, open_console, say
from highnoon.shared.views.formats import dumps

if TYPE_CHECKING:
    from rich.console import Console

    from highnoon.shared.runtime.settings import Settings
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.database import Database


def is_embedded(settings: Settings) -> bool:
    """True when no addresses are set: everything runs on this machine. Raises InvalidInput when only one is."""
    missing = [name for name in ("database_url", "redis_url") if getattr(settings, name) is None]
    if len(missing) == 1:
        raise InvalidInput.of(
            "environment",
            f"HIGHNOON_{missing[0].upper()}",
            "is not set, but the other address is",
            hint="Set both for a cluster, or none to run everything on this machine.",
        )
    return bool(missing)


def is_served(settings: Settings) -> bool:
    """True when the ledger can be read without starting a database for it. Connects to nothing."""
    from highnoon.shared.runtime.data_dir import attach

    return settings.database_url is not None or attach(settings.home) is not None


def why_no_coordinator(settings: Settings) -> str:
    """Empty when a coordinator may run: only of the embedded stack is it known without a connection."""
    if is_served(settings):
        return ""
    return f"no coordinator runs in {near(settings.home)} now; python -m coordinator start runs one"


def why_nothing_starts(database: Database) -> str:
    """Empty while a coordinator leads."""
    from highnoon.shared.store.queries import LedgerQueries

    if LedgerQueries(database).is_led():
        return ""
    return "no coordinator runs, so nothing starts; python -m coordinator start runs one"


@contextmanager
def leaving(what: str, console: Console) -> Iterator[None]:
    """Ends a wait in order on Ctrl-C and SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say(console, f"left; {what} goes on")
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ledger(settings: Settings | None = None, *, create: bool = False) -> Iterator[Access]:
    """The ledger as it is now, by the settings of this process; `create` makes what is missing of it.

    Raises UnknownStudy when nothing was ever run here, ServiceUnavailable when the database is away. Reading needs no
    Redis, so that the database's address alone is enough.
    """
    from highnoon.coordinator.local.stack import serving_database
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store.access import opened

    settings = load_settings() if settings is None else settings
    if settings.database_url is not None:
        with opened(settings.database_url, create=create) as access:
            access.database.check_schema()
            yield access
        return
    is_embedded(settings)  # refuses when only Redis is named: then another ledger than this home's is meant
    with serving_database(settings.home, create=create) as url, opened(url) as access:
        try:
            access.database.check_schema()
        except ServiceUnavailable:  # a start that was ended too early has left it empty, or an older version
            access.create()
        yield access


def environment_with(database_url: str) -> dict[str, str]:
    """The environment for another program: with the whole address, and without the variables that are parts of it."""
    from highnoon.shared.runtime.secret_files import PASSWORD_OF
    from highnoon.shared.runtime.settings import ALIASES

    name = "HIGHNOON_DATABASE_URL"
    parts = {part for part, whole in (PASSWORD_OF | ALIASES).items() if whole == name}
    return {**{known: value for known, value in os.environ.items() if known not in parts}, name: database_url}


def study_names(incomplete: str) -> list[str]:
    """For the shell's completion: studies whose name begins so. Starts no database and raises no error."""
    from highnoon.shared.runtime.settings import load_settings

    with suppress(HighNoonError):
        if is_served(load_settings()):
            with ledger() as access:
                return [record.name for record in access.studies.all() if record.name.startswith(incomplete)]
    return []


StudyFile = Annotated[Path, typer.Argument(help="TOML, JSON or YAML.", metavar="STUDY_FILE")]
StudyName = Annotated[str, typer.Argument(help="The study's name.", metavar="STUDY", autocompletion=study_names)]
TrialNumber = Annotated[int, typer.Argument(help="The trial's number.", metavar="TRIAL")]
TrialsInAll = Annotated[
    int | None, typer.Option("--n-trials", help="Trials in all, in the place of the file's n_trials.", metavar="N")
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


def check_output_folder(path: Path) -> None:
    """Raises InvalidInput for an --output whose folder is missing, before anything is made for it."""
    if not path.absolute().parent.is_dir():
        raise mistake("--output", "lies in a folder that does not exist", str(path))


def mistake(key: str, message: str, value: object = ABSENT, hint: str = "") -> InvalidInput:
    """One thing on the command line that cannot work."""
    return InvalidInput.of("command line", key, message, value=value, hint=hint)


def no_such_trial(none: str, trial: int, count: int) -> InvalidInput:
    """The refusal of a number that, as `none` begins, no trial of a study with `count` trials has."""
    hint = f"It has trials 0 to {count - 1}." if count else "It has none yet."
    return mistake("TRIAL", f"{none} has this number", trial, hint)
