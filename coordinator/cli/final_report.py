"""The report when a study is over: its best trial, what failed on the way, and the exit code."""

from __future__ import annotations

from rich.console import Console

from highnoon.coordinator.cli.failures import WRONG, account, by_cause
from highnoon.coordinator.cli.tables import params_table, result_of
from highnoon.shared.domain.states import StudyState
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.terminal import say
from highnoon.shared.store.access import Access
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.studies import StudyRecord
from highnoon.shared.views.formats import plural
from highnoon.shared.views.studies import StudySummary


def report_end(study: StudySummary, access: Access, console: Console) -> Exit:
    """OK only when there is a best trial and the study was not cancelled."""
    record = study.record
    assert record is not None, "only a study of the ledger is watched"
    # Not those that went well: of a large study they are a gigabyte, with what they printed.
    attempts = access.studies.attempts(record.id, endings=WRONG)
    best = access.optuna(record).best_trial()
    console.print()
    _say_failures(attempts, console)
    if best is None or record.state is StudyState.CANCELLED:
        _say_no_result(record, attempts, access, console)
        return Exit.NO_RESULT
    say(console, f"Best trial {best.number} of {study.closed}: {result_of(best)}", style="bold")
    say(console, "\n".join(params_table(best.params)))
    its = access.studies.attempts(record.id, trial_number=best.number)
    printed = [line for attempt in its for line in (attempt.log_tail or "").strip().splitlines()]
    if printed:
        say(console, f"Its last line: {printed[-1]}")
    return Exit.OK


def _say_failures(attempts: list[AttemptRecord], console: Console) -> None:
    causes = by_cause(attempts)
    if causes:
        say(console, f"{plural(len(attempts), 'attempt')} failed, by cause:", style="bold")
        say(console, "\n".join(f"  {line}" for line in causes))
        console.print()


def _say_no_result(record: StudyRecord, attempts: list[AttemptRecord], access: Access, console: Console) -> None:
    without = "" if record.state is StudyState.CANCELLED else " without a completed trial"
    say(console, f"study {record.name} is {record.state}{without}", style="bold red")
    if attempts:
        last, number = attempts[-1], attempts[-1].trial_number
        say(console, "the last failure:")
        say(console, "\n".join(account(last, "" if number is None else access.traceback(record, number))))
