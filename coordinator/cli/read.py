"""Commands that show how studies stand: list, status, watch, best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.answers import no_result, print_json, print_table, tell
from highnoon.coordinator.cli.arguments import AsJson, StudyName, mistake
from highnoon.coordinator.cli.store_access import ledger, study_names
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.terminal import open_console, say

if TYPE_CHECKING:
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.studies import StudyCounts, StudyRecord

_FORMATS = ("json", "yaml", "toml", "python", "env")

MaybeStudy = Annotated[
    str | None,
    typer.Argument(help="The study's name. Default: the one that runs.", metavar="STUDY", autocompletion=study_names),
]
AsFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Write it as a file: json, yaml, toml, python or env.",
        metavar="FORMAT",
        autocompletion=lambda: list(_FORMATS),
    ),
]


def list_studies(json: AsJson = False) -> None:
    """List all studies with their progress.

    Example: python -m coordinator list --json
    """
    from highnoon.coordinator.cli.report import studies_table, study_object

    with ledger() as access:
        rows = [_standing(record, access) for record in access.studies.all()]
    if json:
        print_json([study_object(*row) for row in rows])
    elif rows:
        print_table(studies_table(rows))
    else:
        tell("no studies yet; begin one: python -m coordinator start STUDY_FILE")


def status(study: StudyName, json: AsJson = False) -> None:
    """Show how far a study is.

    Example: python -m coordinator status digits
    """
    from highnoon.coordinator.cli.report import studies_table, study_object

    with ledger() as access:
        row = _standing(access.study(study), access)
    if json:
        print_json(study_object(*row))
    else:
        print_table(studies_table([row]))
        if row[0].fault is not None:
            tell(f"fault: {row[0].fault}; nothing of it is started until that is mended")


def watch(study: MaybeStudy = None, json: AsJson = False) -> None:
    """Show a study live until it is over.

    How far it is, how good, and what runs in each slot: step, memory, since when. A pipe gets a line when something
    has changed, with --json an object. Ctrl-C leaves, and the study goes on.

    Example: python -m coordinator watch digits
    """
    from highnoon.coordinator.cli.access import why_nobody_coordinates
    from highnoon.coordinator.cli.final_report import report_end
    from highnoon.coordinator.cli.live_view import Board
    from highnoon.coordinator.cli.progress import Lines, Objects
    from highnoon.coordinator.cli.progress import watch as watch_study
    from highnoon.shared.domain.errors import ServiceUnavailable
    from highnoon.shared.runtime.settings import load_settings

    settings = load_settings()
    with ledger() as access:
        record = access.study(study) if study else _the_one_that_runs(access)
        nobody = "" if record.is_over else why_nobody_coordinates(settings)
        if nobody:
            raise ServiceUnavailable(nobody)
        console = open_console(stderr=json)
        live = Board.of(access, settings, console) if console.is_terminal else Lines(console)
        display = Objects(typer.echo) if json else live
        try:
            standing = watch_study(
                record.name, access.studies, console, go_on=lambda _: not why_nobody_coordinates(settings), on=display
            )
        except KeyboardInterrupt:
            say(console, f"left; study {record.name} goes on")
            raise typer.Exit(Exit.INTERRUPTED) from None
        if standing is None:
            raise ServiceUnavailable(why_nobody_coordinates(settings))
        raise typer.Exit(report_end(standing, access, open_console(stderr=json)))


def best(study: StudyName, format: AsFormat = None, json: AsJson = False) -> None:
    """Print the best parameters found so far.

    --format writes them as a file to take away, such as a snippet of Python that goes on with them. --json is for
    programs, and tells loss and size too.

    Example: python -m coordinator best digits --format toml > best.toml
    """
    from highnoon.coordinator.cli.report import params_table, result_of, trial_object
    from highnoon.shared.domain.errors import nearest
    from highnoon.shared.views.best_config import BEST

    if format is not None and format not in _FORMATS:
        raise mistake("--format", "is no format of a best configuration", format, nearest(format, _FORMATS))
    with ledger() as access:
        trial = access.optuna(access.study(study)).best_trial()
    if trial is None:
        next_step = f"python -m coordinator watch {study} shows how far it is"
        raise no_result(f"study {study} has no completed trial yet", next_step=next_step)
    if format is not None:
        typer.echo(BEST[format].write(study, trial), nl=False)
    elif json:
        kept = ("number", "value", "loss", "params_count", "params")
        print_json({name: trial_object(trial)[name] for name in kept})
    else:
        print_table([f"trial {trial.number}: {result_of(trial)}", *params_table(trial.params)])


def _standing(record: StudyRecord, access: Access) -> tuple[StudyRecord, StudyCounts, float | None]:
    maximize = record.spec["direction"] == "maximize"
    return record, access.studies.counts(record.id), access.studies.best_value(record.id, maximize=maximize)


def _the_one_that_runs(access: Access) -> StudyRecord:
    """The newest one that is not over."""
    records = access.studies.all()
    live = [record for record in records if not record.is_over]
    if not live:
        names = ", ".join(record.name for record in records[-5:])
        hint = f"Name one that is over: {names}." if names else "Begin one: python -m coordinator start STUDY_FILE."
        raise mistake("STUDY", "no study runs now", hint=hint)
    return live[-1]
