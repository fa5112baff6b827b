"""What is said when a study is over: its best trial, what failed on the way, and the exit code of it all."""

from __future__ import annotations

from rich.console import Console

from highnoon.coordinator.cli.failures import WRONG, account, by_cause
from highnoon.coordinator.cli.progress import Standing
from highnoon.coordinator.cli.report import params_table, result_of
from highnoon.shared.domain.states import StudyState
from highnoon.shared.runtime.exit_codes import Exit
from highnoon.shared.runtime.terminal import say
from highnoon.shared.store.access import Access
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.studies import StudyRecord


def report_end(standing: Standing, access: Access, console: Console) -> Exit:
    """OK only when there is a best trial and the study was not cancelled."""
    record = standing.record
    # Not those that went well: of a large study they are a gigabyte, with what they printed.
    attempts = access.studies.attempts(record.id, endings=WRONG)
    best = access.optuna(record).best_trial()
    console.print()
    _say_failures(attempts, console)
    if best is None or record.state is StudyState.CANCELLED:
        _say_no_result(record, attempts, access, console)
        return Exit.NO_RESULT
    say(console, f"Best trial {best.number} of {standing.counts.closed}: {result_of(best)}", style="bold")
    say(console, "\n".join(params_table(best.params)))
    its = access.studies.attempts(record.id, trial_number=best.number)
    said = [line for attempt in its for line in _lines(attempt.log_tail)]
    if said:
        say(console, f"Its last line: {said[-1]}")
    return Exit.OK


def _say_failures(attempts: list[AttemptRecord], console: Console) -> None:
    causes = by_cause(attempts)
    if causes:
        say(console, f"{len(attempts)} attempts failed, by cause:", style="bold")
        say(console, "\n".join(f"  {line}" for line in causes))
        console.print()


def _say_no_result(record: StudyRecord, attempts: list[AttemptRecord], access: Access, console: Console) -> None:
    without = "" if record.state is StudyState.CANCELLED else " without a completed trial"
    say(console, f"study {record.name} is {record.state}{without}", style="bold red")
    if attempts:
        last, number = attempts[-1], attempts[-1].trial_number
        say(console, "the last failure:")
        say(console, "\n".join(account(last, "" if number is None else access.traceback(record, number))))


def _lines(text: str | None) -> list[str]:
    return (text or "").strip().splitlines()
