"""Commands that show how studies stand: list, status, watch, best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    StudyName,
    leaving,
    ledger,
    mistake,
    no_result,
    print_json,
    print_sentence,
    print_table,
    study_names,
    why_no_coordinator,
    why_nothing_starts,
)
from highnoon.coordinator.cli.reading import Reader, Storage, next_step, reading
from highnoon.shared.runtime.terminal import open_console, say

if TYPE_CHECKING:
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.study_records import StudyRecord
    from highnoon.shared.views.studies import StudySummary

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


def list_studies(storage: Storage = None, json: AsJson = False) -> None:
    """List all studies with their progress.

    Studies of other Optuna programs are called external.

    Example: python -m coordinator list --json
    """
    from highnoon.coordinator.cli.tables import studies_table
    from highnoon.shared.views.studies import study_object

    with reading(storage) as reader:
        studies, tags = reader.studies(), reader.tags()
        halted = why_halted(studies, reader)
    if json:
        print_json([{**study_object(study), "tags": list(tags.get(study.name, ()))} for study in studies])
    elif studies:
        print_table(studies_table(studies, tags))
        if halted:
            print_sentence(halted, stderr=True)
    else:
        print_sentence("no studies yet; begin one: python -m coordinator start STUDY_FILE")


def status(study: StudyName, storage: Storage = None, json: AsJson = False) -> None:
    """Show how far a study is.

    Example: python -m coordinator status digits
    """
    from highnoon.coordinator.cli.tables import note_lines, studies_table
    from highnoon.shared.views.studies import exhausted_line, fault_line, study_object
    from highnoon.shared.views.trials import note_object

    with reading(storage) as reader:
        summary, note = reader.study(study), reader.notes(study).get(None)
        trouble = reader.notification_trouble(study)
        halted = why_halted([summary], reader)
    if json:
        print_json({**study_object(summary), **note_object(note)})
        return
    print_table(studies_table([summary]))
    if note:
        print_sentence("\n".join(note_lines(note)))
    if summary.record is not None and summary.record.fault is not None:
        print_sentence(fault_line(summary.record.fault))
    if exhausted := exhausted_line(summary):
        print_sentence(exhausted)
    for line in trouble:
        print_sentence(f"notification not sent, {line}")
    if halted:
        print_sentence(halted)


def watch(study: MaybeStudy = None, json: AsJson = False) -> None:
    """Show a study live until it is over.

    How far it is, how good, and what runs in each slot: step, memory, since when. A pipe gets a line when something
    has changed, with --json an object. Ctrl-C leaves, and the study goes on.

    Example: python -m coordinator watch digits
    """
    from highnoon.coordinator.cli.failures import report_end
    from highnoon.coordinator.cli.progress import Display, Lines, LiveView, Objects, Slots
    from highnoon.coordinator.cli.progress import watch as watch_study
    from highnoon.shared.domain.errors import ServiceUnavailable
    from highnoon.shared.runtime.settings import load_settings

    settings = load_settings()
    with ledger(settings) as access:
        record = access.studies.get(study) if study else _running_study(access)
        missing = "" if record.is_over else why_no_coordinator(settings)
        if missing:
            raise ServiceUnavailable(missing)
        console = open_console(stderr=json)
        if not record.is_over and settings.database_url is not None and (halted := why_nothing_starts(access.database)):
            say(console, halted, style="yellow")
        display: Display = Objects(typer.echo) if json else Lines(console)
        if console.is_terminal and not json:
            display = LiveView(console, lambda name: Slots.of(name, access, settings))
        with leaving(f"study {record.name}", console):
            ended = watch_study(
                record.name, access, console, go_on=lambda _: not why_no_coordinator(settings), on=display
            )
        if ended is None:
            raise ServiceUnavailable(why_no_coordinator(settings))
        raise typer.Exit(report_end(ended, access, open_console(stderr=json)))


def best(study: StudyName, format: AsFormat = None, storage: Storage = None, json: AsJson = False) -> None:
    """Print the best parameters found so far.

    --format writes them in a file format, such as a snippet of Python that goes on with them. --json is for programs,
    and has loss and size too. Of a study with several objectives all trials are printed that none beats in all of them.

    Example: python -m coordinator best digits --format toml > best.toml
    """
    from highnoon.coordinator.cli.tables import front_table, params_table, result_of
    from highnoon.shared.domain.errors import nearest
    from highnoon.shared.views.best_config import BEST, FRONT
    from highnoon.shared.views.formats import plural
    from highnoon.shared.views.studies import exhausted_line
    from highnoon.shared.views.trials import trial_object

    if format is not None and format not in _FORMATS:
        raise mistake("--format", "is no format of a best configuration", format, nearest(format, _FORMATS))
    with reading(storage) as reader:
        summary, view = reader.study(study), reader.view(study)
        found, names = view.best(), view.objectives()
    if not found:
        what = "feasible" if summary.spec.get("constraints") else "completed"
        yet = f"is {summary.state} without a {what} trial" if summary.is_over else f"has no {what} trial yet"
        why = "; ".join(filter(None, [f"study {study} {yet}", exhausted_line(summary)]))
        raise no_result(why, next_step=next_step(summary, storage))
    if format is not None and names and format not in FRONT:
        hint = f"Valid: {', '.join(FRONT)}."
        raise mistake("--format", "is for one best trial, and this study has several objectives", format, hint)
    if format is not None:
        typer.echo(FRONT[format](study, found, names) if names else BEST[format].write(study, found[0]), nl=False)
    elif json:
        kept = ("number", *(("values",) if names else ("value", "loss", "params_count")), "params")
        objects = [{name: trial_object(trial)[name] for name in kept} for trial in found]
        print_json(objects if names else objects[0])
    elif names:
        print_sentence(f"{plural(len(found), 'trial')} that none beats in all of: {summary.direction}")
        print_table(front_table(found, names))
    else:
        print_table([f"trial {found[0].number}: {result_of(found[0])}", *params_table(found[0].params)])


def why_halted(studies: Sequence[StudySummary], reader: Reader) -> str:
    """That no coordinator leads, where a study of the ledger is not over; else empty."""
    if reader.access is None or all(study.record is None or study.is_over for study in studies):
        return ""
    return why_nothing_starts(reader.access.database)


def _running_study(access: Access) -> StudyRecord:
    """The newest one that is not over."""
    records = access.studies.all()
    live = [record for record in records if not record.is_over]
    if not live:
        names = ", ".join(record.name for record in records[-5:])
        hint = f"Name one that is over: {names}." if names else "Begin one: python -m coordinator start STUDY_FILE."
        raise mistake("STUDY", "no study runs now", hint=hint)
    return live[-1]
