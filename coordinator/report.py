"""What the command line shows: tables and lines for people, plain objects for `--json`. Reads values, asks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from shared.ledger.studies import AttemptRecord, StudyCounts, StudyRecord
from shared.states import INFRASTRUCTURE_ENDINGS, Ending, TicketState
from shared.trial import Params, ParamValue, Trial


def spelled(value: ParamValue) -> str:
    """A parameter or score as a person would write it."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"{value:.6g}"


def spelled_s(seconds: float | None) -> str:
    """A duration: 8.2 s, 3:05, 2:10:00."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def study_object(record: StudyRecord, counts: StudyCounts, best: float | None) -> dict[str, Any]:
    """A study for programs."""
    return {
        "name": record.name,
        "state": str(record.state),
        "reason": record.stop_reason,
        "direction": record.spec["direction"],
        "trials": counts.total,
        "closed": counts.closed,
        "running": counts.running,
        "attempts": counts.attempts,
        "tickets": {str(state): count for state, count in counts.by_state.items()},
        "endings": {str(ending): count for ending, count in counts.by_ending.items()},
        "best_value": best,
        "submitted_at": record.submitted_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
    }


def trial_object(trial: Trial) -> dict[str, Any]:
    """A trial for programs."""
    return {
        "number": trial.number,
        "state": str(trial.state),
        "value": trial.value,
        "params": trial.params,
        "duration_s": trial.duration_s,
        "reports": [{"step": report.step, "value": report.value} for report in trial.reports],
        "attrs": dict(trial.attrs),
    }


def studies_table(rows: Sequence[tuple[StudyRecord, StudyCounts, float | None]]) -> Table:
    """One line per study."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("study", "state", "trials", "running", "pruned", "failed", "best"):
        table.add_column(heading, justify="left" if heading in ("study", "state") else "right")
    for record, counts, best in rows:
        table.add_row(
            record.name,
            _state(record),
            f"{counts.closed}/{counts.total - counts.by_state.get(TicketState.CANCELLED, 0)}",
            str(counts.running),
            str(pruned_count(counts)),
            str(failed_count(counts)),
            "-" if best is None else spelled(best),
        )
    return table


def trials_table(trials: Sequence[Trial], *, attempts: Sequence[AttemptRecord] = ()) -> Table:
    """One line per trial, parameters last."""
    hosts = {attempt.trial_number: attempt for attempt in attempts}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right")
    table.add_column("state")
    table.add_column("value", justify="right")
    table.add_column("took", justify="right")
    table.add_column("params", overflow="fold")
    for trial in trials:
        attempt = hosts.get(trial.number)
        cause = attempt.cause if attempt is not None and attempt.ending not in (Ending.COMPLETED, None) else None
        table.add_row(
            str(trial.number),
            f"{trial.state}" + (f" ({cause})" if cause and cause != "pruner" else ""),
            "-" if trial.value is None else spelled(trial.value),
            spelled_s(trial.duration_s),
            " ".join(f"{name}={spelled(value)}" for name, value in trial.params.items()),
        )
    return table


def params_table(params: Params) -> Table:
    """The best parameters, one per line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("name", style="bold")
    table.add_column("value", overflow="fold")
    for name, value in params.items():
        table.add_row(name, spelled(value))
    return table


def pruned_count(counts: StudyCounts) -> int:
    """Trials that ended early without a fault."""
    return counts.by_ending.get(Ending.PRUNED, 0) + counts.by_ending.get(Ending.STOPPED, 0)


def failed_count(counts: StudyCounts) -> int:
    """Trials that Optuna knows as FAIL for good."""
    bad = {Ending.FAILED, Ending.TIMED_OUT, *INFRASTRUCTURE_ENDINGS}
    return sum(count for ending, count in counts.by_ending.items() if ending in bad)


def _state(record: StudyRecord) -> str:
    shown = record.stop_reason not in (None, "n_trials", "cancelled")
    return f"{record.state} ({record.stop_reason})" if shown else str(record.state)
