"""Commands about single trials: trials, logs.

A log is read from its file on this host; of another host there is only the end, which the ledger keeps. Workers write
the logs, and rotate them once to `NAME.1`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    StudyName,
    TrialNumber,
    leaving,
    ledger,
    mistake,
    no_such_trial,
    print_json,
    print_sentence,
    print_table,
    why_no_coordinator,
)
from highnoon.coordinator.cli.reading import Storage, next_step, reading
from highnoon.shared.domain.errors import nearest
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.runtime.terminal import open_console
from highnoon.shared.views.attempt_logs import is_elsewhere, printed_by

if TYPE_CHECKING:
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.attempt_records import AttemptRecord
    from highnoon.shared.store.study_records import StudyRecord


STATES = tuple(state.lower() for state in TrialState)

_LINES = 40
_LOOK_S = 0.3

State = Annotated[
    str | None,
    typer.Option(
        help=f"Only trials in this state: {', '.join(STATES)}.", metavar="STATE", autocompletion=lambda: list(STATES)
    ),
]
Sort = Annotated[
    str,
    typer.Option(
        help="number, score, loss, size, state, cause, duration, started, an objective, a parameter or a metric. "
        "Of values the best come first.",
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
    storage: Storage = None,
    json: AsJson = False,
) -> None:
    """List a study's trials, also the trials of lost attempts.

    Trials without the value that they are sorted by come last.

    Example: python -m coordinator trials digits --sort score --limit 5
    """
    from highnoon.coordinator.cli.failures import note_of, notes
    from highnoon.coordinator.cli.tables import note_lines, ordered, trials_table
    from highnoon.shared.views.trials import trial_object

    if state is not None and state.lower() not in STATES:
        raise mistake("--state", "is no state of a trial", state, nearest(state, STATES))
    with reading(storage) as reader:
        summary, view = reader.study(study), reader.view(study)
        found = [trial for trial in view.trials() if state is None or trial.state == state.upper()]
        attempts, written = reader.attempts(summary), reader.notes(study)
        names = list(summary.spec.get("search_space") or ()) or list(view.space())
        goals = dict(zip(view.objectives(), summary.direction.split(", "), strict=False))
    rows = ordered(found, sort, names=names, maximize=summary.maximize, reverse=reverse, goals=goals)
    shown = rows[:limit]
    if json:
        places = {attempt.trial_number: attempt for attempt in attempts}
        print_json(
            [
                {**trial_object(one, places.get(one.number), written.get(one.number)), "attrs": dict(one.attrs)}
                for one in shown
            ]
        )
        return
    if not shown:
        of_state = "" if state is None else f" in state {state.upper()}"
        step = "" if summary.is_over else next_step(summary, storage)
        why = f"study {study} has no trial{of_state}{'' if summary.is_over else ' yet'}"
        print_sentence(f"{why}; {step}" if step else why)
        return
    remarks = {one.number: note_of(one) for one in shown} | dict(notes(attempts))
    for number, note in written.items():
        if number is not None:
            remarks[number] = "; ".join(filter(None, [remarks.get(number, ""), *note_lines(note)]))
    print_table(trials_table(shown, remarks, open_console(), list(goals)))
    if len(shown) < len(rows):
        typer.echo(f"{len(shown)} of {len(rows)} trials", err=True)


def logs(
    study: StudyName, trial: TrialNumber, follow: Follow = False, lines: Lines = None, json: AsJson = False
) -> None:
    """Print how a trial ended, and the last lines that it printed.

    The log is read from its file when the trial ran on this host; of another host's trial the ledger has the end.
    With -f it is printed as it grows until the trial is over, or no coordinator runs here any more; with
    --json as well, only the object at its end is printed.

    Example: python -m coordinator logs digits 3 -f
    """
    from highnoon.coordinator.cli.failures import account, verdict
    from highnoon.shared.domain.errors import ServiceUnavailable
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.views.trials import attempt_object

    settings = load_settings()
    with ledger(settings) as access:
        record = access.studies.get(study)
        attempt = _attempt(access, record, trial)
        followed = follow and attempt.ending is None

        def pause(seconds: float) -> None:
            if missing := why_no_coordinator(settings):
                raise ServiceUnavailable(missing)
            time.sleep(seconds)

        def write(line: str) -> None:
            if not json:  # with --json the lines are in the object that is printed at the end
                typer.echo(line)

        if followed and is_elsewhere(attempt):
            print_sentence(f"its log is on host {attempt.host}: {attempt.log_path}; waiting for its end", stderr=True)
        if followed:
            with leaving("the trial", open_console(stderr=True)):
                follow_log(lambda: _attempt(access, record, trial), write, first=lines, pause=pause)
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
    count = len(access.store.view(record.name).trials())
    raise no_such_trial(f"no attempt of study {record.name}", trial, count)


def last_lines(attempt: AttemptRecord, count: int | None) -> list[str]:
    """The newest lines of what it printed: from its file, else from the ledger."""
    wanted = _LINES if count is None else count
    return printed_by(attempt).rstrip().splitlines()[-wanted:] if wanted else []


def follow_log(
    look: Callable[[], AttemptRecord],
    write: Callable[[str], object],
    *,
    first: int | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Hands on each line of a log on this host until its attempt is over; begins with the `first` last ones, or all."""
    log: GrowingLog | None = None
    while True:
        attempt = look()  # before the file: what an ended attempt printed is all there
        path = None if is_elsewhere(attempt) or attempt.log_path is None else Path(attempt.log_path)
        if log is None and path is not None and path.is_file():
            log = GrowingLog(path)
            begun = log.lines()
            for line in begun if first is None else begun[len(begun) - min(first, len(begun)) :]:
                write(line)
        if log is not None:
            for line in log.lines(whole=attempt.ending is not None):
                write(line)
        if attempt.ending is not None:
            return
        pause(_LOOK_S)


class GrowingLog:
    """A file that another process writes to, read on from the last position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""

    def lines(self, *, whole: bool = False) -> list[str]:
        """Lines that were ended since the last call; with `whole` the last one too, ended or not."""
        text = self._rest + self._file.read()
        if self._is_rotated():
            text += self._file.read()  # what came in between
            self._file.close()
            self._file = self._path.open("rb")
            text += self._file.read()
        ended, end, rest = text.rpartition(b"\n")
        self._rest = b"" if whole else rest
        return (text if whole else ended + end).decode("utf-8", errors="replace").splitlines()

    def _is_rotated(self) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:  # it is just being replaced
            return False
