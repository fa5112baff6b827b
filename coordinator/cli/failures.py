"""What went wrong with attempts, for people: by cause, beside a trial, one in full; and the report at a study's end."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

import typer
from rich.console import Console

from highnoon.coordinator.cli.tables import front_table, near, params_table, result_of
from highnoon.shared.domain.states import (
    CAUSE,
    ENDING,
    MEMORY_CAUSES,
    MESSAGE,
    RETRIABLE,
    WENT_WRONG,
    Cause,
    Ending,
    StudyState,
    known_ending,
)
from highnoon.shared.domain.trial import Trial
from highnoon.shared.runtime.terminal import Exit, say
from highnoon.shared.store.access import Access
from highnoon.shared.store.attempt_records import AttemptRecord, AttemptSummary
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.views.formats import plural
from highnoon.shared.views.studies import StudySummary, exhausted_line

_MISSED = RETRIABLE | {Ending.RELEASED, Ending.CANCELLED}
"""Endings with something to explain: also those without a fault."""

_MOST_OF_A_MESSAGE = 200

_NATIVE = re.compile(
    r"[IWEF]\d{4} \d\d:|WARNING: All log messages before absl|"
    r"\d{4}-\d\d-\d\d \S+: [IWEF] (tensorflow|external)/"
)
"""How lines begin that the libraries of TensorFlow log on their own."""


def failed(attempts: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    """Those that went wrong, whether they were tried again or not."""
    return [attempt for attempt in attempts if attempt.ending in WENT_WRONG]


def by_cause(attempts: Sequence[AttemptRecord]) -> list[str]:
    """A line per distinct cause: how often, its last message, and where to read more. The most frequent first."""
    groups: dict[str, list[AttemptRecord]] = {}
    for attempt in failed(attempts):
        groups.setdefault(_kind(attempt), []).append(attempt)
    ranked = sorted(groups.values(), key=len, reverse=True)
    return [f"{len(group)} x {_reason(group[-1])} (trial {_number(group[-1])}, {_log(group[-1])})" for group in ranked]


def notes(attempts: Sequence[AttemptSummary]) -> Mapping[int, str]:
    """By trial number: why its attempt ended early, and which trials are attempts at the same point."""
    found: dict[int, str] = {}
    for _, history in groupby(sorted(attempts, key=_place), key=lambda attempt: attempt.ticket_id):
        bound = [attempt for attempt in history if attempt.trial_number is not None]
        for before, attempt, after in zip([None, *bound], bound, [*bound[1:], None], strict=False):
            parts = [
                f"trial {_number(before)} again" if before else "",
                _reason(attempt) if attempt.ending in _MISSED else "",
                _in_optuna(attempt),
                f"tried again as trial {_number(after)}" if after else "",
            ]
            assert attempt.trial_number is not None
            found[attempt.trial_number] = "; ".join(filter(None, parts))
    return found


def note_of(trial: Trial) -> str:
    """Why a trial without an attempt ended early, from its attributes; empty for one that did not."""
    ending = known_ending(trial.attrs.get(ENDING))
    if ENDING in trial.attrs and ending not in _MISSED:
        return ""
    return _why(ending, trial.attrs.get(CAUSE), trial.attrs.get(MESSAGE))


def account(attempt: AttemptRecord, traceback: str = "", printed: Sequence[str] | None = None) -> list[str]:
    """All that is known of one attempt: who, where, why, its traceback and the last lines that it printed.

    `printed` are these lines where they come from the log itself and not from the ledger.
    """
    lines = (attempt.log_tail or "").rstrip().splitlines() if printed is None else printed
    return [
        *verdict(attempt, traceback),
        f"{_log(attempt)}, its last lines:" if lines else f"{_log(attempt)}, nothing printed",
        *(f"  | {line}" for line in lines),
    ]


def verdict(attempt: AttemptRecord, traceback: str = "") -> list[str]:
    """Who, where and why, without what it printed."""
    return [
        f"trial {_number(attempt)}, attempt {attempt.attempt} on host {attempt.host}: {attempt.ending or 'running'}",
        *filter(None, [_reason(attempt), _in_optuna(attempt), traceback.rstrip()]),
    ]


def _in_optuna(attempt: AttemptSummary) -> str:
    return f"another program ended it in Optuna: {attempt.foreign_ending}" if attempt.foreign_ending else ""


def _kind(attempt: AttemptRecord) -> str:
    """Messages name pids and values; what makes two failures the same is the cause, or the exception's class."""
    return (attempt.message or "").partition(":")[0] if attempt.cause == Cause.EXCEPTION else str(attempt.cause)


def _reason(attempt: AttemptSummary) -> str:
    return _why(attempt.ending, attempt.cause, attempt.message)


def _why(ending: Ending | None, cause: str | None, message: str | None) -> str:
    message = textwrap.shorten(message or "", _MOST_OF_A_MESSAGE, placeholder=" …")
    if ending is Ending.STOPPED and cause in MEMORY_CAUSES:
        # Its message begins with the cause.
        return f"stopped: memory, {message or cause}"
    return ": ".join(filter(None, [cause, message]))


def _log(attempt: AttemptRecord) -> str:
    return "no log" if attempt.log_path is None else f"log {near(attempt.log_path)}"


def _number(attempt: AttemptSummary) -> str:
    return "-" if attempt.trial_number is None else str(attempt.trial_number)


def _place(attempt: AttemptSummary) -> tuple[int, int]:
    return attempt.ticket_id, attempt.attempt


def report_end(study: StudySummary, access: Access, console: Console, *, since: float = 0.0) -> Exit:
    """OK only when there is a best trial and the study was not cancelled.

    Lists the failures from `since` on, by the clock of the database.
    """
    record = study.record
    assert record is not None, "only a study of the ledger is watched"
    # Not those that went well: of a large study they are a gigabyte, with what they printed.
    attempts = access.studies.attempts(record.id, endings=WENT_WRONG)
    front = access.store.view(record.name).best()
    console.print()
    _say_failures([attempt for attempt in attempts if (attempt.ended_at or since) >= since], console)
    if exhausted := exhausted_line(study):
        say(console, exhausted)
    if not front or record.state is StudyState.CANCELLED:
        _say_no_result(record, attempts, access, console)
        return Exit.NO_RESULT
    best = front[0]
    if best.values:
        say(console, f"{plural(len(front), 'trial')} of {study.closed} that none beats in all:", style="bold")
        say(console, "\n".join(front_table(front, list(record.spec.get("objectives") or ()))))
        return Exit.OK
    say(console, f"Best trial {best.number} of {study.closed}: {result_of(best)}", style="bold")
    say(console, "\n".join(params_table(best.params)))
    its = access.studies.attempts(record.id, trial_number=best.number)
    printed = [line for attempt in its for line in own_lines(attempt.log_tail or "")]
    if printed:
        typer.echo(f"Its last line: {printed[-1]}", file=console.file)
    return Exit.OK


def own_lines(printed: str) -> list[str]:
    """What a training printed, without blank lines and without what TensorFlow's C++ libraries log on their own."""
    return [line for line in printed.splitlines() if line.strip() and not _NATIVE.match(line)]


def _say_failures(attempts: list[AttemptRecord], console: Console) -> None:
    causes = by_cause(attempts)
    if causes:
        say(console, f"{plural(len(attempts), 'attempt')} failed, by cause:", style="bold")
        say(console, "\n".join(f"  {line}" for line in causes))
        console.print()


def _say_no_result(record: StudyRecord, attempts: list[AttemptRecord], access: Access, console: Console) -> None:
    what = "feasible" if record.spec.get("constraints") else "completed"
    without = "" if record.state is StudyState.CANCELLED else f" without a {what} trial"
    say(console, f"study {record.name} is {record.state}{without}", style="bold red")
    if attempts:
        last, number = attempts[-1], attempts[-1].trial_number
        say(console, "the last failure:")
        lines = account(last, "" if number is None else access.traceback(record, number))
        typer.echo("\n".join(lines), file=console.file)  # as `logs` does: a trial's colours are for terminals only
