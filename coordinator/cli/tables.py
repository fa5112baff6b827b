"""What the command line shows to people. Formats values; reads no database.

Lines are plain text, so that a pipe gets what a terminal shows: no cell is padded to its right, and only a terminal
has a width.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import InvalidInput, nearest
from highnoon.shared.domain.note import Note
from highnoon.shared.domain.trial import Params, ParamValue, Trial
from highnoon.shared.runtime.terminal import fitted
from highnoon.shared.views import formats
from highnoon.shared.views.trials import SORT_COLUMNS, in_order, metric_names, sort_keys

if TYPE_CHECKING:
    from rich.console import Console

    from highnoon.shared.store.audit import AuditEntry
    from highnoon.shared.views.studies import StudySummary

_INDENT = " " * 7
_LONGEST_BAR = 40
_BEST_FIRST = frozenset({"value", "score", "loss"})


def value_cell(value: ParamValue, digits: int = 6) -> str:
    """A value or a parameter; a dash where there is none."""
    return "-" if value is None else formats.param(value, digits)


def time_cell(seconds: float | None) -> str:
    """8.2 s, 3:05, 2:10:00; a dash where it is not known."""
    return formats.clock_time(seconds, unknown="-")


def size_cell(count: int | None) -> str:
    """640 MB, 3.9 GB; a dash where it is not known."""
    return formats.size(count, unknown="-")


def trials_wait(count: int) -> str:
    """1 trial waits, 3 trials wait."""
    return f"{formats.plural(count, 'trial')} {'waits' if count == 1 else 'wait'}"


def near(path: Path | str) -> str:
    """Relative to the current folder, when it is below."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def aligned(rows: Sequence[Sequence[str]], *, right: Container[int] = ()) -> list[str]:
    """Columns with two blanks between them, as narrow as their cells."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, right)).rstrip() for row in rows]


def note_lines(note: Note) -> list[str]:
    """What a person wrote, for people."""
    return [*([f"tags: {', '.join(note.tags)}"] if note.tags else []), *note.text.splitlines()]


def studies_table(studies: Sequence[StudySummary], tags: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """A line per study, below their headings; with tags where any of them has some."""
    heads = ("study", "state", "trials", "running", "pruned", "failed", "best")
    table: list[tuple[str, ...]] = [(*heads, "tags") if tags else heads]
    for study in studies:
        numbers = [str(count) for count in (study.running, study.pruned, study.failed)]
        row = (study.name, _state(study), f"{study.closed}/{study.asked}", *numbers, value_cell(study.best))
        table.append((*row, ", ".join(tags.get(study.name, ()))) if tags else row)
    return aligned(table, right=range(2, 7))


def trials_table(
    trials: Sequence[Trial], notes: Mapping[int, str], console: Console, goals: Sequence[str] = ()
) -> list[str]:
    """A line per trial, below their headings. On a terminal it is wrapped, and a note has a line of its own.

    Metrics that need more columns than the terminal has stand behind the parameters.
    """
    metrics = metric_names(trials)
    first, *lines = _heads(trials, metrics, goals)
    rest = "parameters"
    inline: Sequence[str] = ()
    if console.is_terminal and metrics and len(first) + len(rest) + 2 > console.width:
        (first, *lines), inline, rest = _heads(trials, (), goals), metrics, "parameters, metrics"
    table = [f"{first}  {rest}"]
    for trial, head in zip(trials, lines, strict=True):
        # With few digits: `best` and `--json` give more.
        shown = [f"{name}={formats.param(value)}" for name, value in trial.params.items()]
        shown += [f"{name}={formats.number(trial.metrics[name])}" for name in inline if name in trial.metrics]
        params = " ".join(shown)
        note = notes.get(trial.number, "")
        if console.is_terminal:
            table += fitted(f"{head}  {params}", console, hang=_INDENT)
            table += fitted(f"{_INDENT}{note}", console, hang="") if note else []
        else:
            table.append(f"{head}  {params}  {note}".rstrip())
    return table


def _heads(trials: Sequence[Trial], metrics: Sequence[str], goals: Sequence[str]) -> list[str]:
    values = goals or ("value",)
    size = ("size",) if any(trial.params_count is not None for trial in trials) else ()
    heads = [("trial", "state", *values, *size, "took", *metrics)]
    for trial in trials:
        found = trial.values or (trial.value,) * len(values)
        state = str(trial.state) if trial.is_feasible else f"{trial.state} infeasible"
        sized = (value_cell(trial.params_count),) if size else ()
        row = (str(trial.number), state, *map(value_cell, found), *sized, time_cell(trial.duration_s))
        heads.append((*row, *(value_cell(trial.metrics.get(name)) for name in metrics)))
    return aligned(heads, right=set(range(2, len(heads[0]))))


def audit_table(entries: Sequence[AuditEntry], console: Console) -> list[str]:
    """A line per change, below their headings; on a terminal its details are wrapped."""
    rows = [("when", "who", "by", "did", "study")]
    for entry in entries:
        when = datetime.fromtimestamp(entry.at).astimezone().isoformat(sep=" ", timespec="seconds")
        rows.append((when, entry.actor, entry.via, entry.action, entry.study or ""))
    first, *lines = aligned(rows)
    table = [f"{first}  details"]
    for entry, head in zip(entries, lines, strict=True):
        details = " ".join(f"{key}={value}" for key, value in (entry.details or {}).items() if value is not None)
        table += fitted(f"{head}  {details}".rstrip(), console, hang=_INDENT)
    return table


def ordered(
    trials: Sequence[Trial],
    key: str,
    *,
    names: Sequence[str],
    maximize: bool,
    reverse: bool = False,
    goals: Mapping[str, str] = MappingProxyType({}),
) -> list[Trial]:
    """Trials by a key of `trials --sort`, an objective or a parameter, those without a value last.

    `goals` are several objectives and their directions.

    Raises InvalidInput for an unknown key.
    """
    metrics = metric_names(trials)
    keys = sort_keys(names, goals, metrics)
    chosen = next((one for one in (f"values.{key}", key, f"params.{key}", f"metrics.{key}") if one in keys), None)
    if chosen is None:
        hint = nearest(key, [*goals, *SORT_COLUMNS, *names, *metrics])
        raise InvalidInput.of("command line", "--sort", "is no column, parameter or metric", value=key, hint=hint)
    is_maximized = maximize if chosen in _BEST_FIRST else goals.get(chosen.removeprefix("values.")) == "maximize"
    return in_order(trials, keys[chosen], descending=reverse != is_maximized)


def result_of(trial: Trial) -> str:
    """A trial's value; loss and size beside it where the study scores by them."""
    value = value_cell(trial.value)
    if trial.params_count is None or trial.loss is None:
        return f"value {value}"
    return f"value {value} (loss {value_cell(trial.loss)}, {trial.params_count:,} parameters)"


def front_table(front: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """A line for each of the best trials of several objectives, below the objectives' names."""
    rows = [("trial", *names, "parameters")]
    for trial in front:
        params = " ".join(f"{name}={formats.param(value, 6)}" for name, value in trial.params.items())
        rows.append((str(trial.number), *map(value_cell, trial.values), params))
    return aligned(rows, right=range(len(names) + 1))


def params_table(params: Params) -> list[str]:
    """The best parameters, one per line."""
    return aligned([(name, formats.param(value, 6)) for name, value in params.items()]) if params else []


def importance_table(shares: Mapping[str, float]) -> list[str]:
    """A line with a bar per parameter, the most important first."""
    most = max(shares.values(), default=0.0) or 1.0
    bars = ["█" * round(_LONGEST_BAR * share / most) or "▏" for share in shares.values()]
    rows = [(name, f"{share:.1%}", bar) for (name, share), bar in zip(shares.items(), bars, strict=True)]
    return aligned([("parameter", "share", ""), *rows], right={1})


def _padded(row: Sequence[str], widths: Sequence[int], right: Container[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if column in right else cell.ljust(width)


def _state(study: StudySummary) -> str:
    reason = study.record.stop_reason if study.record else None
    return study.state if reason in (None, "n_trials", "cancelled") else f"{study.state} ({reason})"
