"""The command note: what a person writes beside a study or one of its trials."""

from __future__ import annotations

from typing import Annotated

import typer

from highnoon.coordinator.cli.command_io import AsJson, StudyName, ledger, no_result, print_json, print_sentence

Text = Annotated[str | None, typer.Argument(help='The note; "" removes it. Default: print it.', metavar="TEXT")]
Trial = Annotated[int | None, typer.Option("--trial", help="Of this trial, not of the study.", min=0, metavar="N")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="Add a tag. May be repeated.", metavar="TAG")]
Untag = Annotated[list[str] | None, typer.Option("--untag", help="Remove a tag. May be repeated.", metavar="TAG")]


def note(
    study: StudyName,
    text: Text = None,
    trial: Trial = None,
    tag: Tag = None,
    untag: Untag = None,
    json: AsJson = False,
) -> None:
    """Write or print the note and tags of a study or a trial.

    Lists, exports and the dashboard show them, and optuna-dashboard the notes.

    Example: python -m coordinator note digits promising --trial 3 --tag sgd
    """
    from highnoon.coordinator.cli.tables import note_lines
    from highnoon.shared.domain.note import NoteChange
    from highnoon.shared.store.notes import NoteStore
    from highnoon.shared.views.trials import note_object

    with ledger() as access:
        name, store = access.studies.get(study).name, NoteStore(access.database)
        if text is None and not tag and not untag:
            found = store.of_study(name).get(trial)
        else:
            found = store.change(name, trial, NoteChange(text=text, tag=tuple(tag or ()), untag=tuple(untag or ())))
    if json:
        print_json(note_object(found))
    elif found:
        print_sentence("\n".join(note_lines(found)))
    elif text is None and not untag:
        raise no_result(f"nothing is written beside {study if trial is None else f'trial {trial} of {study}'}")
