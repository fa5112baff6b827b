"""What the command line shows: lines for people, plain objects for `--json`. Reads values, asks nothing.

Lines are plain text, so that a pipe gets what a terminal shows: no cell is padded to its right, and only a terminal
has a width.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon.shared.domain.json_safe import finite
from highnoon.shared.domain.states import INFRASTRUCTURE_ENDINGS, Ending, TicketState
from highnoon.shared.domain.trial import Params, ParamValue, Trial
from highnoon.shared.runtime.terminal import fitted

if TYPE_CHECKING:
    from rich.console import Console

    from highnoon.shared.store.studies import StudyCounts, StudyRecord

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_INDENT = " " * 7
_LONGEST_BAR = 40
_DIGITS = 4
"""Of a parameter in a list of trials; `best` and `--json` give more."""


def spelled(value: ParamValue, digits: int = 6) -> str:
    """A parameter or score as a person would write it."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"{value:.{digits}g}"


def spelled_s(seconds: float | None) -> str:
    """A duration: 8.2 s, 3:05, 2:10:00."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def spelled_waiting(count: int) -> str:
    """1 trial waits, 3 trials wait."""
    return f"{count} trial waits" if count == 1 else f"{count} trials wait"


def spelled_bytes(count: int | None) -> str:
    """A size: 640 MB, 3.9 GB."""
    if count is None:
        return "-"
    value, unit = next(((count / size, unit) for size, unit in _UNITS if count >= size), (count, "B"))
    return f"{value:.3g} {unit}"


def near(path: Path | str) -> str:
    """Relative to where the person stands, when it is below."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def aligned(rows: Sequence[Sequence[str]], *, right: Container[int] = ()) -> list[str]:
    """Columns with two blanks between them, as narrow as their cells."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, right)).rstrip() for row in rows]


def studies_table(rows: Sequence[tuple[StudyRecord, StudyCounts, float | None]]) -> list[str]:
    """A line per study, below their headings."""
    table: list[tuple[str, ...]] = [("study", "state", "trials", "running", "pruned", "failed", "best")]
    for record, counts, best in rows:
        trials = f"{counts.closed}/{wanted_count(counts)}"
        numbers = [str(count) for count in (counts.running, pruned_count(counts), failed_count(counts))]
        table.append((record.name, _state(record), trials, *numbers, "-" if best is None else spelled(best)))
    return aligned(table, right=range(2, 7))


def trials_table(trials: Sequence[Trial], notes: Mapping[int, str], console: Console) -> list[str]:
    """A line per trial, below their headings. On a terminal it is wrapped, and a note has a line of its own."""
    heads = [("trial", "state", "value", "took")]
    for trial in trials:
        value = "-" if trial.value is None else spelled(trial.value)
        heads.append((str(trial.number), str(trial.state), value, spelled_s(trial.duration_s)))
    first, *lines = aligned(heads, right={2, 3})
    table = [f"{first}  parameters"]
    for trial, head in zip(trials, lines, strict=True):
        params = " ".join(f"{name}={spelled(value, _DIGITS)}" for name, value in trial.params.items())
        note = notes.get(trial.number, "")
        if console.is_terminal:
            table += fitted(f"{head}  {params}", console, hang=_INDENT)
            table += fitted(f"{_INDENT}{note}", console, hang="") if note else []
        else:
            table.append(f"{head}  {params}  {note}".rstrip())
    return table


def result_of(trial: Trial) -> str:
    """A trial's value; loss and size beside it where the study scores by them."""
    value = "-" if trial.value is None else spelled(trial.value)
    if trial.params_count is None or trial.loss is None:
        return f"value {value}"
    return f"value {value} (loss {spelled(trial.loss)}, {trial.params_count:,} parameters)"


def params_table(params: Params) -> list[str]:
    """The best parameters, one per line."""
    return aligned([(name, spelled(value)) for name, value in params.items()]) if params else []


def importance_table(shares: Mapping[str, float]) -> list[str]:
    """A line with a bar per parameter, the most important first."""
    most = max(shares.values(), default=0.0) or 1.0
    bars = ["█" * round(_LONGEST_BAR * share / most) or "▏" for share in shares.values()]
    rows = [(name, f"{share:.1%}", bar) for (name, share), bar in zip(shares.items(), bars, strict=True)]
    return aligned([("parameter", "share", ""), *rows], right={1})


def wanted_count(counts: StudyCounts) -> int:
    """Trials that are to be closed in the end."""
    return counts.total - counts.by_state.get(TicketState.CANCELLED, 0)


def pruned_count(counts: StudyCounts) -> int:
    """Trials that ended early without a fault."""
    return counts.by_ending.get(Ending.PRUNED, 0) + counts.by_ending.get(Ending.STOPPED, 0)


def failed_count(counts: StudyCounts) -> int:
    """Trials that Optuna knows as FAIL for good."""
    bad = {Ending.FAILED, Ending.TIMED_OUT, *INFRASTRUCTURE_ENDINGS}
    return sum(count for ending, count in counts.by_ending.items() if ending in bad)


def study_object(record: StudyRecord, counts: StudyCounts, best: float | None) -> dict[str, Any]:
    """A study for programs."""
    return {
        "name": record.name,
        "state": str(record.state),
        "reason": record.stop_reason,
        "fault": record.fault,
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
        "loss": trial.loss,
        "params_count": trial.params_count,
        "active_params": trial.active_params,
        "params": trial.params,
        "duration_s": trial.duration_s,
        "reports": [{"step": report.step, "value": report.value} for report in trial.reports],
        "attrs": dict(trial.attrs),
    }


def as_json(value: object) -> str:
    """Strict JSON. It has no nan and no infinity: they become null."""
    return json.dumps(finite(value), indent=2, allow_nan=False)


def as_json_line(value: object) -> str:
    """The same on one line, for a stream of them."""
    return json.dumps(finite(value), allow_nan=False)


def _padded(row: Sequence[str], widths: Sequence[int], right: Container[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if column in right else cell.ljust(width)


def _state(record: StudyRecord) -> str:
    shown = record.stop_reason not in (None, "n_trials", "cancelled")
    return f"{record.state} ({record.stop_reason})" if shown else str(record.state)
