"""Commands about single trials: trials, logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    StudyName,
    TrialNumber,
    mistake,
    print_json,
    print_sentence,
    print_table,
)
from highnoon.coordinator.cli.ledger_access import ledger
from highnoon.shared.domain.errors import nearest
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.terminal import open_console

if TYPE_CHECKING:
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.attempt_records import AttemptRecord
    from highnoon.shared.store.studies import StudyRecord

STATES = tuple(state.lower() for state in TrialState)

State = Annotated[
    str | None,
    typer.Option(
        help=f"Only trials in this state: {', '.join(STATES)}.", metavar="STATE", autocompletion=lambda: list(STATES)
    ),
]
Sort = Annotated[
    str,
    typer.Option(
        help="number, score, loss, size, duration, or a parameter's name. Of score and loss the best come first.",
        metavar="KEY",
    ),
]
Reverse = Annotated[bool, typer.Option("--reverse", "-r", help="The other way round.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", help="At most so many.", min=1, metavar="N")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the trial ends.")]
Lines = Annotated[
    int | None, typer.Option("--lines", "-n", help="How many of its last lines. Default: 40.", min=0, metavar="N")
]


def trials(
    study: StudyName,
    state: State = None,
    sort: Sort = "number",
    reverse: Reverse = False,
    limit: Limit = None,
    json: AsJson = False,
) -> None:
    """List a study's trials, those of lost attempts included.

    Trials without the value that they are sorted by come last.

    Example: python -m coordinator trials digits --sort score --limit 5
    """
    from highnoon.coordinator.cli.failures import notes
    from highnoon.coordinator.cli.tables import ordered, trials_table
    from highnoon.shared.views.trials import trial_object

    if state is not None and state.lower() not in STATES:
        raise mistake("--state", "is no state of a trial", state, nearest(state, STATES))
    states = None if state is None else (TrialState(state.upper()),)
    with ledger() as access:
        record = access.study(study)
        found = access.optuna(record).trials(states=states)
        attempts = access.studies.attempts(record.id)
    names = list(record.spec["search_space"])
    rows = ordered(found, sort, names=names, maximize=record.spec["direction"] == "maximize", reverse=reverse)
    shown = rows[:limit]
    if json:
        places = {attempt.trial_number: attempt for attempt in attempts}
        print_json([{**trial_object(one, places.get(one.number)), "attrs": dict(one.attrs)} for one in shown])
        return
    if not shown:
        of_state = "" if state is None else f" in state {state.upper()}"
        print_sentence(
            f"study {study} has no trial{of_state} yet; python -m coordinator watch {study} shows how far it is"
        )
        return
    print_table(trials_table(shown, notes(attempts), open_console()))
    if len(shown) < len(rows):
        typer.echo(f"{len(shown)} of {len(rows)} trials", err=True)


def logs(
    study: StudyName, trial: TrialNumber, follow: Follow = False, lines: Lines = None, json: AsJson = False
) -> None:
    """Print how a trial ended, and the last lines that it printed.

    The log is read from its file when the trial ran on this host; of another host's trial the ledger has the end.
    With -f it is printed as it grows until the trial is over.

    Example: python -m coordinator logs digits 3 -f
    """
    from highnoon.coordinator.cli.failures import account, verdict
    from highnoon.coordinator.cli.log_follower import follow as follow_log
    from highnoon.coordinator.cli.log_follower import is_elsewhere, last_lines
    from highnoon.shared.views.trials import attempt_object

    with ledger() as access:
        record = access.study(study)
        attempt = _attempt(access, record, trial)
        followed = follow and attempt.ending is None
        if followed and is_elsewhere(attempt):
            print_sentence(f"its log is on host {attempt.host}: {attempt.log_path}; waiting for its end", stderr=True)
        if followed:
            try:
                follow_log(lambda: _attempt(access, record, trial), typer.echo, first=lines)
            except KeyboardInterrupt:
                typer.echo("left; the trial goes on", err=True)
                raise typer.Exit(Exit.INTERRUPTED) from None
            attempt = _attempt(access, record, trial)
        # Optuna has it, and takes a second to be imported.
        has_traceback = attempt.ending in (Ending.FAILED, Ending.STOPPED)
        traceback = access.traceback(record, trial) if has_traceback else ""
    printed = last_lines(attempt, lines)
    if json:
        print_json({**attempt_object(attempt), "traceback": traceback, "lines": printed})
    elif followed and not is_elsewhere(attempt):
        typer.echo("\n".join(verdict(attempt, traceback)), err=True)
    else:
        typer.echo("\n".join(account(attempt, traceback, printed)))


def _attempt(access: Access, record: StudyRecord, trial: int) -> AttemptRecord:
    attempts = access.studies.attempts(record.id, trial_number=trial)
    if attempts:
        return attempts[-1]
    count = len(access.optuna(record).trials())
    hint = f"It has trials 0 to {count - 1}." if count else "It has none yet."
    raise mistake("TRIAL", f"no attempt of study {record.name} has this number", trial, hint)
